//! Database servers: told by their packages, their configuration, and the marker file that every initialised data directory
//! has. One entry for each data directory, or for the engine where none was found.

use crate::guest::report::{Database, Databases, FileFact, Package, Services};
use crate::guest::tree::WalkNext;

use super::files::Files;
use super::security::is_enabled;

/// How one engine shows itself.
struct Engine {
    name: &'static str,
    /// Names of the server's packages; a trailing `*` stands for anything.
    packages: &'static [&'static str],
    /// Configuration files, as patterns.
    configs: &'static [&'static str],
    /// Data directories, as patterns.
    data: &'static [&'static str],
    /// A file that every initialised data directory has, as a pattern below it.
    markers: &'static [&'static str],
    /// Keys of the port, the listening address and the data directory in the configuration.
    keys: [&'static [&'static str]; 3],
    port: u32,
    services: &'static [&'static str],
}

const ENGINES: [Engine; 9] = [
    Engine {
        name: "postgresql",
        packages: &[
            "postgresql-1*",
            "postgresql-9*",
            "postgresql-server",
            "postgresql1*-server",
            "postgresql9*-server",
            "postgresql*-server",
        ],
        configs: &[
            "/etc/postgresql/*/*/postgresql.conf",
            "/var/lib/pgsql/data/postgresql.conf",
            "/var/lib/pgsql/*/data/postgresql.conf",
        ],
        data: &["/var/lib/postgresql/*/*", "/var/lib/pgsql/data", "/var/lib/pgsql/*/data", "/var/lib/postgresql/data"],
        markers: &["PG_VERSION"],
        keys: [&["port"], &["listen_addresses"], &["data_directory"]],
        port: 5432,
        services: &["postgresql.service", "postgresql@*.service", "postgresql-*.service", "postgresql"],
    },
    Engine {
        name: "mariadb",
        packages: &["mariadb-server", "mariadb-server-1*", "mariadb"],
        configs: &[
            "/etc/mysql/mariadb.conf.d/50-server.cnf",
            "/etc/my.cnf.d/mariadb-server.cnf",
            "/etc/my.cnf.d/server.cnf",
        ],
        data: &["/var/lib/mysql"],
        markers: &["aria_log_control"],
        keys: [&["port"], &["bind-address", "bind_address"], &["datadir"]],
        port: 3306,
        services: &["mariadb.service", "mysql.service", "mysqld.service", "mariadb"],
    },
    Engine {
        name: "mysql",
        packages: &["mysql-server", "mysql-server-*", "mysql-community-server", "mysql-community-server-core"],
        configs: &["/etc/mysql/mysql.conf.d/mysqld.cnf", "/etc/my.cnf"],
        data: &["/var/lib/mysql"],
        markers: &["mysql.ibd", "auto.cnf"],
        keys: [&["port"], &["bind-address", "bind_address"], &["datadir"]],
        port: 3306,
        services: &["mysql.service", "mysqld.service"],
    },
    Engine {
        name: "mongodb",
        packages: &["mongodb-server", "mongodb-org-server", "mongodb", "mongodb-server-core"],
        configs: &["/etc/mongod.conf", "/etc/mongodb.conf"],
        data: &["/var/lib/mongodb", "/var/lib/mongo"],
        markers: &["WiredTiger", "storage.bson"],
        keys: [&["port"], &["bindIp", "bind_ip"], &["dbPath", "dbpath"]],
        port: 27017,
        services: &["mongod.service", "mongodb.service"],
    },
    Engine {
        name: "redis",
        packages: &["redis-server", "redis", "redis6", "redis7"],
        configs: &["/etc/redis/redis.conf", "/etc/redis.conf", "/etc/redis6.conf"],
        data: &["/var/lib/redis", "/var/lib/redis6"],
        markers: &["dump.rdb", "appendonly.aof", "appendonlydir"],
        keys: [&["port"], &["bind"], &["dir"]],
        port: 6379,
        services: &["redis-server.service", "redis.service", "redis6.service", "redis"],
    },
    Engine {
        name: "valkey",
        packages: &["valkey-server", "valkey"],
        configs: &["/etc/valkey/valkey.conf"],
        data: &["/var/lib/valkey"],
        markers: &["dump.rdb", "appendonlydir"],
        keys: [&["port"], &["bind"], &["dir"]],
        port: 6379,
        services: &["valkey-server.service", "valkey.service"],
    },
    Engine {
        name: "etcd",
        packages: &["etcd-server", "etcd"],
        configs: &["/etc/default/etcd", "/etc/etcd/etcd.conf", "/etc/etcd/etcd.conf.yml"],
        data: &["/var/lib/etcd", "/var/lib/etcd/default", "/var/lib/etcd/default.etcd"],
        markers: &["member/snap/db"],
        keys: [&[], &["ETCD_LISTEN_CLIENT_URLS", "listen-client-urls"], &["ETCD_DATA_DIR", "data-dir"]],
        port: 2379,
        services: &["etcd.service"],
    },
    Engine {
        name: "influxdb",
        packages: &["influxdb", "influxdb2"],
        configs: &["/etc/influxdb/influxdb.conf", "/etc/influxdb/config.toml"],
        data: &["/var/lib/influxdb"],
        markers: &["influxd.bolt", "meta/meta.db"],
        keys: [&[], &["bind-address", "http-bind-address"], &["bolt-path"]],
        port: 8086,
        services: &["influxdb.service", "influxd.service"],
    },
    Engine {
        name: "elasticsearch",
        packages: &["elasticsearch", "elasticsearch-oss"],
        configs: &["/etc/elasticsearch/elasticsearch.yml"],
        data: &["/var/lib/elasticsearch"],
        markers: &["nodes", "_state"],
        keys: [&["http.port"], &["network.host", "http.host"], &["path.data"]],
        port: 9200,
        services: &["elasticsearch.service"],
    },
];

/// The module. `measure` sums up the data directories, which means a walk over each.
pub(crate) fn inspect(files: &Files<'_>, packages: &[Package], services: &Services, measure: bool) -> Databases {
    let mut databases: Vec<Database> =
        ENGINES.iter().flat_map(|engine| find(files, engine, packages, services)).collect();
    if measure {
        for database in &mut databases {
            database.size_bytes = database.data_directory.as_ref().and_then(|path| size_of(files, path));
        }
    }
    databases.sort_by(|a, b| (&a.engine, &a.data_directory).cmp(&(&b.engine, &b.data_directory)));
    Databases { databases }
}

/// A SQLite file that the walk over every file found.
pub(crate) fn sqlite(file: &FileFact) -> Database {
    Database {
        engine: "sqlite".to_owned(),
        data_directory: Some(file.path.clone()),
        initialized: true,
        size_bytes: Some(file.size_bytes),
        evidence: vec!["data".to_owned()],
        ..Database::default()
    }
}

fn find(files: &Files<'_>, engine: &Engine, packages: &[Package], services: &Services) -> Vec<Database> {
    let is_server = |package: &&Package| {
        package.state == "installed"
            && engine.packages.iter().any(|pattern| super::pattern::matches(pattern, &package.name))
    };
    let package = packages.iter().find(is_server);
    let configs: Vec<String> = engine.configs.iter().flat_map(|pattern| files.glob(pattern)).collect();
    let mut directories: Vec<(String, Option<String>)> = Vec::new();
    for config in &configs {
        let text = files.text(config).unwrap_or_default();
        let [_, _, keys] = engine.keys;
        if let Some(path) = setting(&text, keys).filter(|path| path.starts_with('/')) {
            directories.push((path, Some(config.clone())));
        }
    }
    let found = engine.data.iter().flat_map(|pattern| files.glob(pattern)).map(|path| (path, None));
    for (path, config) in found {
        if !directories.iter().any(|(known, _)| *known == path) {
            directories.push((path, config));
        }
    }
    directories.retain(|(path, _)| marker(files, engine, path));
    let has_own_evidence = package.is_some() || !directories.is_empty();
    if !has_own_evidence {
        return Vec::new();
    }
    let enabled = engine.services.iter().any(|pattern| {
        let mut units = services.units.iter().filter(|unit| super::pattern::matches(pattern, &unit.name));
        units.any(|unit| is_enabled(services, &unit.name))
    });
    let describe = |directory: Option<String>, config: Option<String>| {
        let config = config.or_else(|| configs.first().cloned());
        let text = config.as_ref().and_then(|path| files.text(path)).unwrap_or_default();
        let [port_keys, listen_keys, _] = engine.keys;
        let listen = setting(&text, listen_keys).unwrap_or_default();
        let mut evidence = Vec::new();
        evidence.extend(package.map(|_| "package".to_owned()));
        evidence.extend(config.as_ref().map(|_| "config".to_owned()));
        evidence.extend(directory.as_ref().map(|_| "data".to_owned()));
        let own_version = directory.as_ref().and_then(|path| files.first_line(&format!("{path}/PG_VERSION")));
        Database {
            engine: engine.name.to_owned(),
            version: package.map(|package| package.version.clone()).or(own_version),
            package: package.map(|package| package.name.clone()),
            port: Some(setting(&text, port_keys).and_then(|port| port.parse().ok()).unwrap_or(engine.port)),
            listen_addresses: listen
                .split([',', ' '])
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            initialized: directory.is_some(),
            config,
            data_directory: directory,
            enabled: Some(enabled),
            evidence,
            ..Database::default()
        }
    };
    if directories.is_empty() {
        return vec![describe(None, None)];
    }
    directories.into_iter().map(|(path, config)| describe(Some(path), config)).collect()
}

fn marker(files: &Files<'_>, engine: &Engine, directory: &str) -> bool {
    engine.markers.iter().any(|marker| files.exists(&format!("{directory}/{marker}")))
}

/// The last value of any of `keys` in `key = value`, `key: value` or `key value`, comments left out.
fn setting(text: &str, keys: &[&str]) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '/']));
    let mut values = lines.filter_map(|line| {
        let end = line.find(|c: char| c.is_whitespace() || c == '=' || c == ':')?;
        let (key, rest) = line.split_at_checked(end)?;
        if !keys.contains(&key) {
            return None;
        }
        let value = rest.trim_start().trim_start_matches(['=', ':']).trim_start();
        let value = match value.strip_prefix(['\'', '"']) {
            Some(quoted) => quoted.split(['\'', '"']).next().unwrap_or_default(),
            None => value.split(" #").next().unwrap_or_default().split('\t').next().unwrap_or_default().trim_end(),
        };
        (!value.is_empty()).then(|| value.to_owned())
    });
    values.next_back()
}

/// Bytes of the regular files below `path`.
fn size_of(files: &Files<'_>, path: &str) -> Option<u64> {
    let mut total = 0_u64;
    let walked = files.tree().walk(path, |entry| {
        if entry.file_type == crate::filesystem::FileType::Regular {
            total = total.saturating_add(entry.metadata()?.size);
        }
        Ok(WalkNext::Descend)
    });
    match walked {
        Ok(unreadable) if unreadable.is_empty() => Some(total),
        Ok(unreadable) => {
            for directory in unreadable {
                files.warn_error(&String::from_utf8_lossy(&directory.path), &directory.error);
            }
            None
        }
        Err(error) => {
            files.warn_error(path, &error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn a_cluster_is_told_by_package_configuration_and_data() {
        let fixture = Fixture::new();
        fixture.file("etc/postgresql/15/main/postgresql.conf", "data_directory = '/var/lib/postgresql/15/main'\t# x\nport = 5433\t# y\nlisten_addresses = 'localhost, 10.0.0.1'\n#port = 1\n");
        fixture.file("var/lib/postgresql/15/main/PG_VERSION", "15\n");
        fixture.file("var/lib/mysql/ibdata1", "");
        let package = Package {
            name: "postgresql-15".into(),
            state: "installed".into(),
            version: "15.6".into(),
            ..Package::default()
        };
        let tree = fixture.tree();
        let found = inspect(&Files::new(&tree), &[package], &Services::default(), true).databases;
        assert_eq!(found.len(), 1, "a directory without its marker is no database");
        assert_eq!((found[0].version.as_deref(), found[0].port), (Some("15.6"), Some(5433)));
        assert_eq!(found[0].listen_addresses, ["localhost", "10.0.0.1"]);
        assert_eq!(found[0].size_bytes, Some(3));
        assert_eq!(found[0].evidence, ["package", "config", "data"]);
    }

    #[test]
    fn settings_of_several_syntaxes_are_read() {
        assert_eq!(setting("bind 127.0.0.1 ::1\nport 6380\n", &["port"]).as_deref(), Some("6380"));
        assert_eq!(setting("storage:\n  dbPath: /data # x\n", &["dbPath"]).as_deref(), Some("/data"));
        assert_eq!(setting("datadir\t= /var/lib/mysql\n", &["datadir"]).as_deref(), Some("/var/lib/mysql"));
        assert_eq!(setting("port", &["port"]), None);
    }
}
