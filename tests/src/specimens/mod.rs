//! The corpus as a table: each packet's name, the verdict it must get, and how it is built.
//!
//! Verdicts are written by hand from the design and the RFCs; nothing here asks the code under test.

mod fragments;
mod ipv4;
mod ipv6;
mod link;
mod roles;
mod transport;

use knock_common::verdict::Verdict;

use crate::corpus::Entry;

/// Entries of one file of the corpus.
#[derive(Debug, Default)]
pub struct Table {
    /// The entries so far.
    pub entries: Vec<Entry>,
}

impl Table {
    fn add(&mut self, name: impl Into<String>, verdict: Verdict, frame: Vec<u8>) {
        self.entries.push(Entry { name: name.into(), verdict, frame });
    }
}

/// A file of the corpus: its name without `.txt`, its title, and what fills it.
pub type File = (&'static str, &'static str, fn(&mut Table));

/// All files of the corpus.
pub const FILES: [File; 6] = [
    ("fragments", "Fragments of both families: first, later, atomic, tiny, overlapping.", fragments::fill),
    ("ipv4", "IPv4 headers: version, length, options, checksum, source, what is carried.", ipv4::fill),
    ("ipv6", "IPv6 headers and chains of extension headers.", ipv6::fill),
    ("link", "Ethernet: types that are not IP, VLAN tags, group addresses, frames cut short.", link::fill),
    ("roles", "Ports and sources: hidden, step, public, other; stranger, allowed, granted.", roles::fill),
    ("transport", "TCP flags and lengths, UDP lengths, ICMP types.", transport::fill),
];
