//! The fault plan: rules that say which requests go wrong, and how.
//!
//! A rule matches requests by operation, bucket and key; of those it picks some by their number or by chance; and it
//! has one action. Every rule that picks a request adds its action to the request's `Effects`; the server looks at
//! these at the places where they matter. A new kind of fault is a variant of `Action`, an arm in `Action::apply`
//! and, unless an existing effect does, a field of `Effects`.
mod action;
mod apply;
mod effects;
mod plan;
mod refusal;

pub use action::{Action, Body};
pub use effects::{Chunks, Corruption, Effects, Ending, ListingFault, Mutation, Outage, Refusal};
pub use plan::{CONNECT, Call, Plan, RuleConfig, fingerprint};
pub use refusal::wrong_region;
