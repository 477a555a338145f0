//! The packet corpus: named frames with the verdict they must get, and the one gate that gives it.
//!
//! `tests/corpus/*.txt` hold entries of one line `name Verdict` and indented lines of hex; `tests/corpus/README.md`
//! has the configuration in words. [`gate`] is the same configuration for the pure core and for filling maps.

use std::{fs, path::Path};

use knock_common::{
    abi::{Address, Proto, mapped},
    verdict::Verdict,
};

use crate::{
    gate::{Door, Gate, Permit, Prefix, SECOND, echo, tcp, udp},
    packet::v6_address,
};

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique in the corpus.
    pub name: String,
    /// The verdict it must get.
    pub verdict: Verdict,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A source of the `allow` list.
pub const ALLOWED: [u8; 4] = [192, 0, 2, 5];
/// A source of the `allow` list.
pub const ALLOWED6: Address = v6_address(0x0a, 5);
/// A source with a grant.
pub const GRANTED: [u8; 4] = [198, 51, 100, 7];
/// A source with a grant.
pub const GRANTED6: Address = v6_address(0, 7);
/// A source whose grant ended a nanosecond ago.
pub const EXPIRED: [u8; 4] = [198, 51, 100, 8];
/// A source whose grant ends now.
pub const ENDING: [u8; 4] = [198, 51, 100, 6];
/// The time at which the corpus is judged.
pub const NOW_NS: u64 = 1000 * SECOND;

const VERDICTS: [Verdict; 14] = [
    Verdict::NotIp,
    Verdict::Unrelated,
    Verdict::Allowed,
    Verdict::Granted,
    Verdict::Hidden,
    Verdict::Knock,
    Verdict::LaterFragment,
    Verdict::LinkCut,
    Verdict::VlanDepth,
    Verdict::BadIp,
    Verdict::MappedSource,
    Verdict::BadExtension,
    Verdict::FragmentOverlap,
    Verdict::BadTransport,
];

/// Returns the gate of the corpus, at [`NOW_NS`].
pub fn gate() -> Gate {
    let mut door = Door::of(&[tcp(7001), udp(7002), echo(56)]);
    door.opens = vec![(Proto::Tcp, 22..=22), (Proto::Tcp, 9000..=9010), (Proto::Udp, 51_820..=51_820)];
    let mut gate = Gate::new(vec![door], &[(Proto::Tcp, 80..=80), (Proto::Tcp, 443..=443)]);
    gate.allow = vec![
        Prefix { address: mapped([192, 0, 2, 0]), bits: 96 + 24 },
        Prefix { address: v6_address(0x0a, 0), bits: 48 },
    ];
    let permit = |source: Address, until_ns: u64| Permit { source, door: 0, until_ns };
    gate.grants = vec![
        permit(mapped(GRANTED), NOW_NS + 30 * SECOND),
        permit(GRANTED6, NOW_NS + 30 * SECOND),
        permit(mapped(ENDING), NOW_NS),
        permit(mapped(EXPIRED), NOW_NS - 1),
    ];
    gate.now_ns = NOW_NS;
    gate
}

/// Returns all entries of a folder, file by file in the order of their names; it has some.
pub fn load(folder: &Path) -> Vec<Entry> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let texts = paths.iter().map(|path| fs::read_to_string(path).expect("a readable file"));
    let entries: Vec<Entry> = texts.flat_map(|text| parse(&text)).collect();
    assert!(!entries.is_empty(), "no packets in {}", folder.display());
    entries
}

/// Returns the entries of a file.
pub fn parse(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(hex) = line.strip_prefix("    ") {
            entries.last_mut().expect("a name before the hex").frame.extend(bytes(hex));
            continue;
        }
        let (name, verdict) = line.split_once(' ').unwrap_or_else(|| panic!("no verdict in `{line}`"));
        let verdict = VERDICTS.into_iter().find(|known| format!("{known:?}") == verdict);
        let verdict = verdict.unwrap_or_else(|| panic!("unknown verdict in `{line}`"));
        entries.push(Entry { name: name.to_owned(), verdict, frame: vec![] });
    }
    entries
}

fn bytes(hex: &str) -> impl Iterator<Item = u8> + '_ {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| {
        let text = str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(text, 16).unwrap_or_else(|_| panic!("`{text}` is no byte"))
    })
}

/// Returns entries as the text of a file; a frame takes 48 bytes a line.
pub fn text(title: &str, entries: &[Entry]) -> String {
    let mut text = format!("# {title}\n");
    for entry in entries {
        text += &format!("\n{} {:?}\n", entry.name, entry.verdict);
        for line in entry.frame.chunks(48) {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("    {hex}\n");
        }
    }
    text
}
