//! Checks that a fact and an operator cannot say: walks, joins, and what is judged for each of many subjects. One module for
//! each subject, named as the rules name it.

pub(super) mod audit;
pub(super) mod logging;
pub(super) mod packages;
pub(super) mod services;
pub(super) mod ssh;
pub(super) mod time;
