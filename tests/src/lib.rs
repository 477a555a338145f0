//! What the tests share: the gate on single packets, network namespaces, the program under test, and the stock
//! programs it is tried against.

pub mod client;
pub mod corpus;
pub mod daemon;
pub mod gate;
pub mod netns;
pub mod packet;
pub mod program;
pub mod scene;
pub mod service;
pub mod specimens;
pub mod sshd;
pub mod vlan;
