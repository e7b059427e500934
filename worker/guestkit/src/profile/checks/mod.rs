//! Checks that a fact and an operator cannot say: walks, joins, and what is judged for each of many subjects. One module for
//! each subject, named as the rules name it.

pub(super) mod ssh;
pub(super) mod windows;
