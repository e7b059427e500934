//! What `cargo xtask chaos` asks for, and where it wants the answer; without it the tests run their short forms.

/// A number from the environment: `GUESTKIT_CHAOS_<NAME>`.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(format!("GUESTKIT_CHAOS_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("GUESTKIT_CHAOS_{name}={text:?}: {error}")))
}

/// Hands in a table.
pub(crate) fn report(table: &str) {
    if let Some(file) = std::env::var_os("GUESTKIT_CHAOS_REPORT") {
        std::fs::write(file, table).unwrap();
    }
}
