//! A compiled configuration, grants and bans in plain collections, as decisions ask for them.

use std::collections::{HashMap, HashSet};

use knock_common::{
    abi::{
        Address, Ban, DoorRule, Flow, FlowKey, FragmentKey, Grant, GrantKey, List, PORTS, PortDoors,
        PrefixKey, Proto, Role, Sessions, Settings,
    },
    decide::{Tables, Visit},
    pages::{Book, Page},
    spa::abi::KeyId,
    verdict::Mode,
};
use knock_user::generation::Generation;

/// A generation, the grants, the bans and the time, as [`Tables`].
#[derive(Clone, Debug)]
pub struct Plain {
    /// The configuration.
    pub generation: Generation,
    /// Grants, live and expired.
    pub grants: HashMap<GrantKey, Grant>,
    /// Bans, in force and over.
    pub bans: HashMap<Address, Ban>,
    /// Whether they are asked for.
    pub are_bans_in_use: bool,
    /// Conversations that a TCP socket other than a listening one is there for.
    pub sockets: HashSet<FlowKey>,
    /// Conversations of sources with hidden services.
    pub sessions: HashMap<Address, Sessions>,
    /// Conversations whose answers are awaited.
    pub replies: HashMap<FlowKey, Flow>,
    /// Datagrams whose later fragments pass, and until when.
    pub fragments: HashMap<FragmentKey, u64>,
    /// Destinations that the host sends packets on to.
    pub forwarded: HashSet<Address>,
    /// Sequences of doors that have one after the other.
    pub shelf: Shelf,
    /// The time.
    pub now_ns: u64,
}

/// The pages of a generation's books, and what was used of them.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    /// What is said of each lane, by its door number.
    pub books: HashMap<u8, Book>,
    /// The pages and their sequences, by the door number of lane 0 and their own.
    pub pages: HashMap<(u8, u64), (Page, DoorRule)>,
    /// The floors that claims raise.
    pub floors: HashMap<KeyId, u64>,
    /// Unix time at boot.
    pub offset_ns: u64,
}

impl Shelf {
    /// Lays in what is there at a Unix time, with nothing used.
    #[must_use]
    pub fn at(generation: &Generation, unix_ns: u64, offset_ns: u64) -> Self {
        let mut shelf = Self { offset_ns, ..Self::default() };
        for volume in &generation.pages.volumes {
            for (number, book) in volume.books(|_| false) {
                shelf.books.insert(u8::try_from(number).expect("few doors"), book);
            }
            for number in volume.wanted(unix_ns) {
                let entry = volume.entry(number);
                shelf.pages.insert((volume.base, number), (entry.page, entry.rule));
                shelf.floors.insert(entry.page.floor, 0);
            }
        }
        shelf
    }

    /// Returns the live page of a door number.
    #[must_use]
    pub fn page(&self, door: u8, now_ns: u64) -> Option<&(Page, DoorRule)> {
        let book = self.books.get(&door)?;
        let base = u8::try_from(book.base).expect("few doors");
        let first = if book.is_rotating() {
            book.first_live(now_ns.wrapping_add(self.offset_ns))
        } else {
            self.books[&base].next
        };
        self.pages.get(&(base, book.page(first)))
    }

    /// Uses up the live page of a door number; returns whether nobody had before.
    pub fn claim(&mut self, door: u8, now_ns: u64) -> bool {
        let Some((page, _)) = self.page(door, now_ns).copied() else { return false };
        let floor = self.floors.get_mut(&page.floor).expect("laid in with its page");
        let is_first = *floor < page.counter;
        *floor = page.counter.max(*floor);
        let book = self.books[&door];
        if !book.is_rotating() {
            let base = self.books.get_mut(&u8::try_from(book.base).expect("few doors")).expect("lane 0");
            base.next = base.next.max(page.number + 1);
        }
        is_first
    }
}

impl Plain {
    /// Returns the tables of a generation, with nothing known, at time 0.
    #[must_use]
    pub fn new(generation: Generation) -> Self {
        Self {
            generation,
            grants: HashMap::new(),
            bans: HashMap::new(),
            are_bans_in_use: false,
            sockets: HashSet::new(),
            sessions: HashMap::new(),
            replies: HashMap::new(),
            fragments: HashMap::new(),
            forwarded: HashSet::new(),
            shelf: Shelf::default(),
            now_ns: 0,
        }
    }

    /// Returns whether a flag of the settings is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.generation.settings.flags & flag != 0
    }
}

impl Tables for Plain {
    fn role(&self, proto: Proto, port: u16) -> Role {
        match proto {
            Proto::Tcp => self.generation.port_roles[usize::from(port)],
            Proto::Udp => self.generation.port_roles[PORTS + usize::from(port)],
            Proto::Icmp => self.generation.settings.echo_role,
        }
    }

    fn port_doors(&self, index: u32) -> PortDoors {
        self.generation.port_doors.get(index as usize).copied().unwrap_or_default()
    }

    fn door(&self, door: u8) -> Option<&DoorRule> {
        self.generation.doors.get(usize::from(door))
    }

    fn page(&self, door: u8, now_ns: u64) -> Option<&DoorRule> {
        self.shelf.page(door, now_ns).map(|(_, rule)| rule)
    }

    fn has_allow(&self) -> bool {
        self.generation.settings.lists & List::Allow.bit() != 0
    }

    fn is_listed(&self, list: List, door: u8, address: &Address) -> bool {
        let wanted = PrefixKey::new(list.number(), u16::from(door), address);
        self.generation.prefixes.iter().any(|(bits, key)| {
            let pairs = bytemuck::bytes_of(&wanted).iter().zip(bytemuck::bytes_of(key));
            let alike = pairs.map(|(a, b)| (a ^ b).leading_zeros()).take_while(|bits| *bits == 8).count();
            let differing =
                bytemuck::bytes_of(&wanted)[alike..].iter().zip(&bytemuck::bytes_of(key)[alike..]);
            let more = differing.map(|(a, b)| (a ^ b).leading_zeros()).next().unwrap_or(0);
            u32::try_from(alike * 8).expect("160 bits") + more >= *bits
        })
    }

    fn is_ephemeral(&self, port: u16) -> bool {
        let settings = &self.generation.settings;
        (settings.ephemeral_first..=settings.ephemeral_last).contains(&port)
    }

    fn grant_until_ns(&self, source: &Address, door_id: u64) -> Option<u64> {
        self.grants.get(&GrantKey { source: *source, door: door_id }).map(|grant| grant.until_ns)
    }

    fn has_bans(&self) -> bool {
        self.are_bans_in_use
    }

    fn ban_until_ns(&self, source: &Address) -> Option<u64> {
        self.bans.get(source).map(|ban| ban.until_ns)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn is_deny(&self) -> bool {
        Mode::from_number(self.generation.settings.mode) == Mode::Deny
    }

    fn any_doors(&self) -> u64 {
        self.generation.settings.any_doors
    }

    fn is_public_proto(&self, proto: u8) -> bool {
        self.generation.settings.public_protos[usize::from(proto / 64)] >> (proto % 64) & 1 != 0
    }

    fn has_socket(&self, flow: &FlowKey) -> bool {
        self.sockets.contains(flow)
    }

    fn sessions(&self, source: &Address) -> Option<&Sessions> {
        self.sessions.get(source).filter(|_| self.has(Settings::SESSIONS))
    }

    fn udp_idle_ns(&self) -> u64 {
        self.generation.settings.udp_idle_ns
    }

    fn reply(&self, flow: &FlowKey) -> Option<Flow> {
        self.replies.get(flow).copied().filter(|_| self.is_deny())
    }

    fn fragments_until_ns(&self, key: &FragmentKey) -> Option<u64> {
        self.fragments.get(key).copied()
    }

    fn is_forwarded(&self, visit: &Visit) -> bool {
        !self.has(Settings::DENY_FORWARD) && !visit.is_group && self.forwarded.contains(&visit.destination)
    }
}
