//! What the tests share: the gate on single packets, network namespaces, the program under test, and the stock
//! programs it is tried against.

pub mod bpffs;
pub mod capture;
pub mod client;
pub mod corpus;
pub mod daemon;
pub mod flood;
pub mod gate;
pub mod hosts;
pub mod instance;
pub mod internet;
pub mod kernel;
pub mod listener;
pub mod machine;
pub mod model;
pub mod netns;
pub mod oracle;
pub mod packet;
pub mod plain;
pub mod process;
pub mod program;
pub mod random;
pub mod raw;
pub mod reach;
pub mod scene;
pub mod sender;
pub mod service;
pub mod session;
pub mod shape;
pub mod specimens;
pub mod sshd;
pub mod standing;
pub mod storm;
pub mod traffic;
pub mod vlan;
pub mod wireguard;
