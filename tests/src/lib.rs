//! What the tests share: the gate on single packets, network namespaces, the program under test, and the stock
//! programs it is tried against.

pub mod bpffs;
pub mod client;
pub mod corpus;
pub mod daemon;
pub mod gate;
pub mod kernel;
pub mod machine;
pub mod model;
pub mod netns;
pub mod packet;
pub mod plain;
pub mod program;
pub mod random;
pub mod scene;
pub mod service;
pub mod shape;
pub mod specimens;
pub mod sshd;
pub mod traffic;
pub mod vlan;
