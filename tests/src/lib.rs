//! What the tests of the real program share with those of the pure core.

pub mod corpus;
pub mod gate;
pub mod packet;
pub mod specimens;
