//! Checks that a fact and an operator cannot say: walks, joins, and what is judged for each of many subjects. One module for
//! each subject, named as the rules name it.

pub(super) mod accounts;
pub(super) mod audit;
pub(super) mod crypto;
pub(super) mod files;
pub(super) mod kernel;
pub(super) mod logging;
pub(super) mod migration;
pub(super) mod mounts;
pub(super) mod network;
pub(super) mod packages;
pub(super) mod performance;
pub(super) mod services;
pub(super) mod ssh;
pub(super) mod sudo;
pub(super) mod time;
pub(super) mod traces;
pub(super) mod windows;
