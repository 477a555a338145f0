//! What the tests of the real program share with those of the pure core.

pub mod corpus;
pub mod gate;
pub mod kernel;
pub mod model;
pub mod packet;
pub mod plain;
pub mod random;
pub mod shape;
pub mod specimens;
pub mod traffic;
