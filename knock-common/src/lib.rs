//! What a knock gate decides, as pure functions: the same source runs on the host under test and in the kernel at XDP.
//!
//! The rules of this crate: no allocation, no `unsafe`, no clock, no I/O. A frame is read through [`frame::Frame`],
//! configuration and grants through [`decide::Tables`], time is an argument. `knock-ebpf` is the glue around it.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod abi;
pub mod answer;
pub mod budget;
pub mod claim;
pub mod counter;
pub mod decide;
pub mod door;
pub mod event;
pub mod flow;
pub mod frame;
pub mod grant;
pub mod machine;
pub mod names;
pub mod outgoing;
pub mod pages;
pub mod parse;
pub mod rotate;
pub mod session;
pub mod spa;
pub mod talk;
pub mod verdict;
