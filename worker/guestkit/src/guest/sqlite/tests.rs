//! Against SQLite itself, which makes the databases and is asked for the same rows; its files are copied while a connection
//! is open, as a guest that was cut off leaves them.

use std::fs;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::*;
use crate::limits::Limits;

/// Main file, log, journal.
struct Copy([Option<Vec<u8>>; 3]);

impl Copy {
    fn of(path: &Path) -> Self {
        Self(["", "-wal", "-journal"].map(|suffix| fs::read(format!("{}{suffix}", path.display())).ok()))
    }

    fn files(&self) -> DatabaseFiles<'_> {
        let [main, log, journal] = self.0.each_ref().map(|file| file.as_ref().map(|file| file as &dyn ReadAt));
        DatabaseFiles { main: main.unwrap(), log, journal }
    }

    /// What SQLite says of a copy, which it may recover first.
    fn truth(&self, table: &str, columns: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        for (suffix, file) in ["", "-wal", "-journal"].iter().zip(&self.0) {
            if let Some(file) = file {
                fs::write(format!("{}{suffix}", path.display()), file).unwrap();
            }
        }
        let connection = Connection::open(&path).unwrap();
        let select = format!("SELECT rowid, {} FROM {table} ORDER BY rowid", columns.join(", "));
        let mut statement = connection.prepare(&select).unwrap();
        let rows = statement.query_map([], |row| {
            let rowid: i64 = row.get(0)?;
            let values = (0..columns.len()).map(|column| match row.get_ref(column + 1).unwrap() {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Real(number) => Value::Real(number),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text)),
                ValueRef::Blob(blob) => Value::Blob(blob),
            });
            Ok(format!("{rowid} {:?}", values.collect::<Vec<_>>()))
        });
        rows.unwrap().map(|row| row.unwrap()).collect()
    }

    fn told(&self, table: &str, columns: &[&str]) -> Result<(Vec<String>, Damage)> {
        let budget = Budget::new(&Limits::default());
        let database = Database::open(self.files(), &budget)?;
        let table = database.table(table)?.expect("the table is there");
        let columns: Vec<usize> = columns.iter().map(|name| table.column(name).expect("the column is there")).collect();
        let mut rows = Vec::new();
        let damage = database.rows(&table, &mut |row| {
            let values: Vec<_> = columns.iter().map(|column| row.get(*column)).collect();
            rows.push(format!("{} {values:?}", row.rowid));
            Ok(())
        })?;
        Ok((rows, damage))
    }
}

const COLUMNS: [&str; 5] = ["id", "key", "number", "blob", "later"];

/// A database with rows of every class and length, some of them over many pages.
fn fill(connection: &Connection, rows: i64) {
    connection
        .execute_batch(
            "CREATE TABLE first (a, b);
             CREATE TABLE \"Rows\" (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL DEFAULT 'a,(b',
                 number NUMERIC(10, 2), [blob] BLOB, CHECK (number <> 0.5), UNIQUE (key, id));
             CREATE INDEX by_key ON \"Rows\" (key);",
        )
        .unwrap();
    insert(connection, 0..rows);
    connection.execute_batch("ALTER TABLE \"Rows\" ADD COLUMN later REAL").unwrap();
    insert(connection, rows..rows + 5);
    connection.execute("DELETE FROM \"Rows\" WHERE id % 7 = 3", []).unwrap();
}

fn insert(connection: &Connection, rows: std::ops::Range<i64>) {
    let mut statement = connection.prepare("INSERT INTO \"Rows\" (key, number, blob) VALUES (?1, ?2, ?3)").unwrap();
    for row in rows {
        let key = format!("schlüssel-{row}");
        let blob: Vec<u8> = (0..(row * row * 13) % 20_000).map(|at| (at % 251) as u8).collect();
        match row % 4 {
            0 => statement.execute(params![key, row * row * row - 1000, blob]),
            1 => statement.execute(params![key, row as f64 / 3.0, blob]),
            2 => statement.execute(params![key, i64::MIN + row, Option::<i64>::None]),
            _ => statement.execute(params!["", Option::<i64>::None, &blob[..blob.len().min(400)]]),
        }
        .unwrap();
    }
}

#[test]
fn rows_agree_with_sqlite_for_every_page_size_and_encoding() {
    for page in [512, 1024, 4096, 65_536] {
        for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("db");
            let connection = Connection::open(&path).unwrap();
            let pragmas = format!("PRAGMA page_size = {page}; PRAGMA encoding = '{encoding}'; PRAGMA auto_vacuum = 1");
            connection.execute_batch(&pragmas).unwrap();
            fill(&connection, 150);
            let copy = Copy::of(&path);
            let (told, damage) = copy.told("rows", &COLUMNS).unwrap();
            assert_eq!(told, copy.truth("rows", &COLUMNS), "{page} {encoding}");
            assert!(damage.count == 0 && told.len() > 100, "{page} {encoding}: {damage:?}");
        }
    }
}

#[test]
fn what_the_log_committed_is_there_and_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 5; PRAGMA cache_spill = 5",
        )
        .unwrap();
    fill(&connection, 100);
    let committed = Copy::of(&path);
    assert!(committed.0[1].as_ref().unwrap().len() > 100_000);
    // A transaction that spilled into the log and was never committed.
    connection.execute_batch("BEGIN").unwrap();
    insert(&connection, 200..300);
    let open = Copy::of(&path);
    assert!(open.0[1].as_ref().unwrap().len() > committed.0[1].as_ref().unwrap().len());
    connection.execute_batch("COMMIT; PRAGMA wal_checkpoint").unwrap();
    // The log begins anew: its first frames are new, those behind them old.
    connection.execute("DELETE FROM \"Rows\" WHERE id < 50", []).unwrap();
    let restarted = Copy::of(&path);
    for (copy, name) in [(&committed, "committed"), (&open, "open"), (&restarted, "restarted")] {
        let (told, damage) = copy.told("rows", &COLUMNS).unwrap();
        assert_eq!(damage.count, 0, "{name}: {damage:?}");
        assert_eq!(told, copy.truth("rows", &COLUMNS), "{name}");
    }
    // A frame torn in the middle ends the log where SQLite ends it.
    let mut torn = Copy(committed.0.clone());
    let log = torn.0[1].as_mut().unwrap();
    let middle = log.len() / 2;
    log[middle] ^= 1;
    let (told, damage) = torn.told("rows", &COLUMNS[..4]).unwrap();
    assert_eq!(told, torn.truth("rows", &COLUMNS[..4]));
    assert!(damage.count == 0 && !told.is_empty() && told.len() < 80, "{}", told.len());
    let mut foreign = Copy(committed.0.clone());
    foreign.0[1].as_mut().unwrap()[0] = 0;
    let budget = Budget::new(&Limits::default());
    assert!(Database::open(foreign.files(), &budget).is_ok_and(|database| database.log_is_invalid()));
}

#[test]
fn an_interrupted_transaction_is_rolled_back() {
    for page in [512, 4096] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(&format!("PRAGMA page_size = {page}; PRAGMA cache_size = 5; PRAGMA cache_spill = 5"))
            .unwrap();
        fill(&connection, 150);
        let before = Copy::of(&path).told("rows", &COLUMNS).unwrap().0;
        connection.execute_batch("BEGIN; UPDATE \"Rows\" SET key = 'changed', blob = NULL WHERE id > 20").unwrap();
        insert(&connection, 300..350);
        let copy = Copy::of(&path);
        let without = Copy([copy.0[0].clone(), None, None]).told("rows", &COLUMNS).map(|(told, _)| told);
        assert_ne!(without.unwrap_or_default(), before, "the database itself was changed already");
        let (told, damage) = copy.told("rows", &COLUMNS).unwrap();
        assert_eq!(damage.count, 0, "{damage:?}");
        assert_eq!(told, before);
        assert_eq!(told, copy.truth("rows", &COLUMNS));
        connection.execute_batch("ROLLBACK; PRAGMA journal_mode = PERSIST; INSERT INTO first VALUES (1, 2)").unwrap();
        let over = Copy::of(&path);
        assert!(over.0[2].is_some());
        assert_eq!(over.told("rows", &COLUMNS).unwrap().0, over.truth("rows", &COLUMNS));
    }
}

/// Seeded changes and cuts of all three files: a result or a typed error, in bounded time.
#[test]
fn no_bytes_can_end_or_hang_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, logged) = (folder.path().join("plain"), folder.path().join("logged"));
    let connection = Connection::open(&plain).unwrap();
    connection.execute_batch("PRAGMA page_size = 512; PRAGMA cache_size = 5; PRAGMA cache_spill = 5").unwrap();
    fill(&connection, 60);
    connection.execute_batch("BEGIN; UPDATE \"Rows\" SET key = 'changed'").unwrap();
    let other = Connection::open(&logged).unwrap();
    other.execute_batch("PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
    fill(&other, 30);
    let samples = [Copy::of(&plain), Copy::of(&logged)];
    let mut state = 0x5eed_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound.max(1)
    };
    let started = std::time::Instant::now();
    let mut refused = 0;
    for round in 0..600 {
        let mut copy = Copy(samples[round % 2].0.clone());
        for file in copy.0.iter_mut().flatten() {
            for _ in 0..below(8) {
                let length = file.len();
                let at = if below(2) == 0 { below(length.min(2048)) } else { below(length) };
                match below(8) {
                    0 => file.truncate(at),
                    1 => file.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
                    2 => file.iter_mut().skip(at).take(64).for_each(|byte| *byte = 0),
                    _ => file.iter_mut().skip(at).take(1).for_each(|byte| *byte = below(256) as u8),
                }
            }
        }
        let budget = Budget::new(&Limits::default());
        let read = Database::open(copy.files(), &budget).and_then(|database| match database.table("rows")? {
            Some(table) => database.rows(&table, &mut |row| {
                (0..6).for_each(|column| drop(row.get(column)));
                Ok(())
            }),
            None => Ok(Damage::default()),
        });
        refused += u32::from(read.is_err());
    }
    assert!(refused > 10, "the changes reach nothing");
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn columns_are_read_from_statements() {
    let cases = [
        ("CREATE TABLE t(a, b INTEGER PRIMARY KEY)", vec!["a", "b"], Some(1)),
        (
            "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)",
            vec!["hnum", "blob"],
            Some(0),
        ),
        (
            "CREATE TABLE t([a b] int, `c` x DEFAULT ('(,'), \"check\" y, PRIMARY KEY (c))",
            vec!["a b", "c", "check"],
            None,
        ),
        ("CREATE TABLE t(a INT PRIMARY KEY)", vec!["a"], None),
        ("CREATE TABLE t", vec![], None),
        ("", vec![], None),
    ];
    for (sql, names, rowid) in cases {
        let (told, told_rowid) = columns(sql);
        assert_eq!((told, told_rowid), (names.into_iter().map(str::to_owned).collect(), rowid), "{sql}");
    }
}
