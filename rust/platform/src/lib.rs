//! Empty: `build.rs` is what the crate is for. It depends on nothing, so that it is tried before anything else.
#![no_std]
