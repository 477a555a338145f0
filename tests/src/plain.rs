//! A compiled configuration, grants and bans in plain collections, as decisions ask for them.

use std::collections::HashMap;

use knock_common::{
    abi::{Address, Ban, DoorRule, Grant, GrantKey, List, PORTS, PortDoors, PrefixKey, Proto, Role},
    decide::Tables,
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
    /// The time.
    pub now_ns: u64,
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

    fn has_allow(&self) -> bool {
        self.generation.settings.lists & List::Allow.bit() != 0
    }

    fn is_listed(&self, list: List, door: u8, address: &Address) -> bool {
        let wanted = PrefixKey::new(list.number(), door, address);
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
}
