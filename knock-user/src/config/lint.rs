//! What is allowed and yet doubtful: warnings, each with the reason and the way out.

use std::time::Duration;

use toml::Spanned;

use super::{
    Mode, SessionRule,
    door::Draft,
    problem::Findings,
    rotate,
    rules::{neighbours, shown},
    secret, show_duration, xdp,
};
use crate::{service::Service, step::Step};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The kernel's default range for the local end of outgoing traffic (ip-sysctl: `ip_local_port_range`).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Sequences of manuals and tutorials are mostly multiples of these, as 7000, 8000, 9000 or 33333, 22222, 11111.
const ROUND: [u16; 3] = [1000, 1111, 11_111];

/// Ports from 1024 up that scanners try first, for the services they usually carry.
const SCANNED_FIRST: [u16; 54] = [
    1080, 1194, 1433, 1521, 1701, 1723, 1883, 1900, 2049, 2082, 2083, 2181, 2222, 2375, 2376, 3000, 3128,
    3268, 3306, 3389, 4443, 4500, 5000, 5060, 5222, 5353, 5355, 5432, 5555, 5601, 5672, 5900, 5984, 6000,
    6379, 6443, 6667, 7001, 8000, 8008, 8080, 8081, 8443, 8888, 9000, 9090, 9100, 9200, 9418, 9999, 11_211,
    25_565, 27_017, 51_820,
];

pub(super) fn judge(xdp: &xdp::Draft, doors: &[Draft], found: &mut Findings) {
    for door in doors.iter().filter(|door| !door.knock.is_empty()) {
        strength(door, found);
        order(door, found);
        published(door, found);
        bare_echo_first(door, found);
        for (i, step) in door.knock.iter().enumerate() {
            well_known(door, step, found);
            ephemeral(xdp, door, step, found);
            repeated(door, &door.knock[..i], step, found);
        }
    }
    for (door, draft) in doors.iter().filter_map(|door| Some((door, door.rotate.as_ref()?))) {
        rotating(xdp, door, draft, found);
    }
    doors.iter().for_each(|door| long_grant(door, found));
    lock_out(xdp, doors, found);
    public_protocols(xdp, found);
}

fn strength(door: &Draft, found: &mut Findings) {
    let steps: Vec<Step> = door.knock.iter().map(|step| *step.get_ref()).collect();
    let bits = secret::bits(&steps);
    // Below the lower limit the rules have already refused it, unless the door allows it.
    let refused = bits < secret::REFUSE_BELOW && !door.allow_weak;
    if bits >= secret::WARN_BELOW || refused {
        return;
    }
    let message = format!("{}: {bits:.0} bits of secret", door.title);
    found.warning(
        door.knock_span.clone(),
        message,
        format!("{} or more are better: add a step", secret::WARN_BELOW),
    );
}

fn rotating(xdp: &xdp::Draft, door: &Draft, draft: &rotate::Draft, found: &mut Findings) {
    let Some(rotate) = &draft.rotate else { return };
    let bits = rotate.bits();
    if (secret::REFUSE_BELOW..secret::WARN_BELOW).contains(&bits) {
        let message = format!("{}: a rotating sequence of {bits:.0} bits", door.title);
        let help = format!("{} or more are better: add a step, on the client too", secret::WARN_BELOW);
        found.warning(draft.span.clone(), message, help);
    }
    let is_ephemeral = rotate.shape.ports.meets(&EPHEMERAL);
    if xdp.mode != Mode::Deny && is_ephemeral {
        let message = format!(
            "{}: rotate: `ports` {} reach into the ephemeral range {}-{}: replies to this host's own traffic count \
             as wrong knocks for this door",
            door.title,
            rotate.shape.ports,
            EPHEMERAL.start(),
            EPHEMERAL.end()
        );
        found.warning(draft.ports_span.clone(), message, "choose ports below the range, as \"10000-32767\"");
    }
}

fn order(door: &Draft, found: &mut Findings) {
    if let [step] = &door.knock[..] {
        let message = format!("{}: a single step, \"{}\"", door.title, step.get_ref());
        found.warning(step.span(), message, "any scan that reaches it opens the door: add steps");
    }
    let near = |pair: &&[Spanned<Step>]| neighbours(&pair[0], &pair[1]);
    // When every pair is near, the rules have refused the sequence.
    if door.knock.windows(2).all(|pair| near(&pair)) {
        return;
    }
    for pair in door.knock.windows(2).filter(near) {
        let message = format!("{}: {} are neighbours", door.title, shown(pair));
        found.warning(pair[1].span(), message, "a scan takes both steps at once: move them apart");
    }
}

fn published(door: &Draft, found: &mut Findings) {
    let ports: Vec<u16> = door.knock.iter().filter_map(|step| port(*step.get_ref())).collect();
    let round = ROUND.iter().any(|unit| ports.iter().all(|port| port.is_multiple_of(*unit)));
    if ports.len() < 2 || ports.len() != door.knock.len() || !round {
        return;
    }
    let message = format!("{}: {} is like a published example", door.title, shown(&door.knock));
    found.warning(
        door.knock_span.clone(),
        message,
        "guessers try those first: `xdp-knock init` draws ports at random",
    );
}

fn bare_echo_first(door: &Draft, found: &mut Findings) {
    let Some(first) = door.knock.first() else { return };
    if *first.get_ref() != (Step::Icmp { size: None, id: None }) {
        return;
    }
    let message = format!("{}: the first step is a bare \"{}\"", door.title, first.get_ref());
    let help = "every ping from anywhere begins an attempt: add ?size=BYTES, or begin with another step";
    found.warning(first.span(), message, help);
}

fn well_known(door: &Draft, step: &Spanned<Step>, found: &mut Findings) {
    let Some(port) = port(*step.get_ref()) else { return };
    if !is_well_known(port) {
        return;
    }
    let message = format!("{}: step \"{}\" is a well-known port", door.title, step.get_ref());
    let help = "scanners try it first, and a service may come to listen there: choose one from 1024 to 32767";
    found.warning(step.span(), message, help);
}

fn ephemeral(xdp: &xdp::Draft, door: &Draft, step: &Spanned<Step>, found: &mut Findings) {
    let Step::Udp(port) = *step.get_ref() else { return };
    // Deny mode knows replies by what the host sent.
    if xdp.mode == Mode::Deny || !EPHEMERAL.contains(&port.get()) {
        return;
    }
    let message = format!(
        "{}: step \"{}\" is in the ephemeral range {}-{}: replies to this host's own traffic count as wrong knocks \
         for this door",
        door.title,
        step.get_ref(),
        EPHEMERAL.start(),
        EPHEMERAL.end()
    );
    found.warning(step.span(), message, "choose a UDP port below the range");
}

fn repeated(door: &Draft, earlier: &[Spanned<Step>], step: &Spanned<Step>, found: &mut Findings) {
    let Some((last, before)) = earlier.split_last() else { return };
    // Neighbours that are equal are an error of their own.
    let tcp = matches!(step.get_ref(), Step::Tcp(_));
    if tcp
        || last.get_ref() == step.get_ref()
        || !before.iter().any(|other| other.get_ref() == step.get_ref())
    {
        return;
    }
    let message = format!("{}: step \"{}\" comes again", door.title, step.get_ref());
    let help =
        "within 1s of the first it is taken for a duplicate and ignored: wait longer, or use another step";
    found.warning(step.span(), message, help);
}

fn long_grant(door: &Draft, found: &mut Findings) {
    let Some(open_for) = door.open_for.as_ref().filter(|time| *time.get_ref() > DAY) else { return };
    let shown = show_duration(*open_for.get_ref());
    let message = format!("{}: `open_for` is {shown}", door.title);
    let help = match door.sessions {
        SessionRule::Keep => {
            "everybody behind that address is in for that long: what was connected outlives it, so make it short"
        }
        SessionRule::Cut => {
            "everybody behind that address is in for that long: choose the longest stay you need, and knock again"
        }
    };
    found.warning(open_for.span(), message, help);
}

fn lock_out(xdp: &xdp::Draft, doors: &[Draft], found: &mut Findings) {
    let ssh = Service::Tcp(22..=22);
    let hides = |door: &&Draft| door.opens.iter().any(|service| service.get_ref().overlaps(&ssh));
    if !xdp.allow.is_empty() {
        return;
    }
    match xdp.mode {
        Mode::Observe => return,
        Mode::Guard => {}
        Mode::Deny if !xdp.public.is_empty() => return,
        Mode::Deny => {
            let message = "[xdp]: mode \"deny\" with neither `allow` nor `public`";
            let help = "a wrong step locks you out of everything: put a prefix you can always come from into `allow`, \
                        or try mode \"observe\" first";
            found.warning(xdp.mode_span.clone(), message, help);
            return;
        }
    }
    let Some(door) = doors.iter().find(hides) else { return };
    let message = format!("[xdp]: mode \"guard\" with {} hiding tcp/22 and no `allow`", door.title);
    let help = "a wrong step locks you out too: put a prefix you can always come from into `allow`, \
                or try mode \"observe\" first";
    found.warning(xdp.mode_span.clone(), message, help);
}

fn public_protocols(xdp: &xdp::Draft, found: &mut Findings) {
    if xdp.mode == Mode::Deny {
        return;
    }
    for public in xdp.public.iter().filter(|public| matches!(public.get_ref(), Service::Proto(_))) {
        let message =
            format!("[xdp]: \"{}\" in `public` means nothing in mode \"{}\"", public.get_ref(), xdp.mode);
        found.warning(public.span(), message, "that mode drops no other protocols: leave it out");
    }
}

/// Whether scanners try this port early: below 1024, or carrying a common service.
pub(super) fn is_well_known(port: u16) -> bool {
    port < 1024 || SCANNED_FIRST.binary_search(&port).is_ok()
}

/// Whether the port is one that manuals choose for their examples.
pub(super) fn is_round(port: u16) -> bool {
    ROUND.iter().any(|unit| port.is_multiple_of(*unit))
}

/// The port of a step that has one.
pub(super) fn port(step: Step) -> Option<u16> {
    match step {
        Step::Tcp(port) | Step::Udp(port) => Some(port.get()),
        Step::Icmp { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_ports_is_in_order() {
        assert!(SCANNED_FIRST.is_sorted(), "a binary search needs it");
    }
}
