//! Database servers: instances of SQL Server by its own keys, others by their services. Sources: Microsoft, "File Locations for
//! Default and Named Instances of SQL Server"; the installers of the others for the names of their services.

use crate::guest::linux::files::Files;
use crate::guest::report::{Database, Databases, Package, Services, Unit};

use super::hives::{Hives, Node};
use super::profiles::guest_path;

const SQL_SERVER: &str = "Microsoft\\Microsoft SQL Server";
const SQL_SERVER_32: &str = "WOW6432Node\\Microsoft\\Microsoft SQL Server";
const SQL_SERVER_PORT: u32 = 1433;

/// Others: engine, beginning of the service's name in lower case, port, an option of the service's command that names the
/// data directory, words of the program's display name.
const ENGINES: [(&str, &str, u32, &[&str], &str); 12] = [
    ("postgresql", "postgresql", 5432, &["-D"], "PostgreSQL"),
    ("mariadb", "mariadb", 3306, &["--datadir="], "MariaDB"),
    ("mysql", "mysql", 3306, &["--datadir="], "MySQL Server"),
    ("mongodb", "mongodb", 27_017, &["--dbpath"], "MongoDB"),
    ("redis", "redis", 6379, &[], "Redis"),
    ("redis", "memurai", 6379, &[], "Memurai"),
    ("elasticsearch", "elasticsearch", 9200, &[], "Elasticsearch"),
    ("opensearch", "opensearch", 9200, &[], "OpenSearch"),
    ("influxdb", "influxdb", 8086, &[], "InfluxDB"),
    ("etcd", "etcd", 2379, &["--data-dir"], "etcd"),
    ("oracle", "oracleservice", 1521, &[], "Oracle Database"),
    ("couchdb", "apache couchdb", 5984, &[], "Apache CouchDB"),
];

/// The module.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>, packages: &[Package], services: &Services) -> Databases {
    let mut databases = Vec::new();
    for path in [SQL_SERVER, SQL_SERVER_32] {
        if let Some(key) = hives.software_key(path) {
            databases.extend(sql_servers(files, &key, services));
        }
    }
    for unit in services.units.iter().filter(|unit| unit.kind == "service") {
        databases.extend(by_service(files, unit, packages));
    }
    databases.sort_by(|one, other| {
        (&one.engine, &one.data_directory, &one.instance).cmp(&(&other.engine, &other.data_directory, &other.instance))
    });
    databases.dedup();
    Databases { databases }
}

fn sql_servers(files: &Files<'_>, key: &Node<'_>, services: &Services) -> Vec<Database> {
    let Some(names) = key.key("Instance Names\\SQL") else { return Vec::new() };
    let instance = |value: &crate::guest::registry::Value<'_>| {
        let name = value.name().to_owned();
        let own = key.key(&names.text_of(value)?)?;
        let setup = own.key("Setup");
        let text = |name: &str| setup.as_ref().and_then(|key| key.text(name));
        let root = text("SQLDataRoot").or_else(|| text("SQLPath"));
        let data = root.map(|root| format!("{root}\\DATA"));
        let exists = |file: &str| {
            let path = data.as_deref().and_then(guest_path);
            path.is_some_and(|path| files.exists(&format!("{path}/{file}")))
        };
        let tcp = own.key("MSSQLServer\\SuperSocketNetLib\\Tcp");
        let all = tcp.as_ref().and_then(|key| key.key("IPAll"));
        let port = |name: &str| all.as_ref().and_then(|key| key.number(name)).and_then(|port| u32::try_from(port).ok());
        let is_default = name.eq_ignore_ascii_case("MSSQLSERVER");
        let service = if is_default { name.clone() } else { format!("MSSQL${name}") };
        let unit = services.units.iter().find(|unit| unit.name.eq_ignore_ascii_case(&service));
        let is_listening = tcp.as_ref().and_then(|key| key.flag("Enabled")) != Some(false);
        let by_default = || (is_default && is_listening).then_some(SQL_SERVER_PORT);
        Some(Database {
            engine: "mssql".to_owned(),
            version: text("PatchLevel").or_else(|| text("Version")),
            edition: text("Edition"),
            initialized: exists("master.mdf"),
            data_directory: data,
            port: port("TcpPort").or_else(|| port("TcpDynamicPorts")).filter(|port| *port > 0).or_else(by_default),
            enabled: unit.map(|unit| unit.state == "enabled"),
            evidence: vec!["config".to_owned()],
            instance: Some(name),
            ..Database::default()
        })
    };
    names.values().iter().filter_map(instance).collect()
}

fn by_service(files: &Files<'_>, unit: &Unit, packages: &[Package]) -> Option<Database> {
    let name = unit.name.to_lowercase();
    let (engine, _, port, options, words) = ENGINES.iter().find(|(_, prefix, ..)| name.starts_with(prefix))?;
    let command = unit.exec_start.as_deref().unwrap_or_default();
    let data = options.iter().find_map(|option| argument(command, option));
    let named = |package: &&Package| package.display_name.as_deref().is_some_and(|name| name.contains(words));
    let package = packages.iter().find(named);
    let is_there = data.as_deref().and_then(guest_path).is_some_and(|path| files.is_dir(&path));
    let evidence = [Some("config"), package.map(|_| "package"), is_there.then_some("data")];
    Some(Database {
        engine: (*engine).to_owned(),
        version: package.map(|package| package.version.clone()),
        package: package.and_then(|package| package.display_name.clone()),
        config: argument(command, "--defaults-file=").or_else(|| argument(command, "--config")),
        data_directory: data,
        initialized: is_there,
        port: Some(*port),
        enabled: Some(unit.state == "enabled"),
        evidence: evidence.into_iter().flatten().map(str::to_owned).collect(),
        instance: Some(unit.name.clone()),
        ..Database::default()
    })
}

/// The argument after `option` in a command, with or without quotes.
fn argument(command: &str, option: &str) -> Option<String> {
    let (before, after) = command.split_once(option)?;
    let after = after.trim_start();
    let value = match after.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        // `"--defaults-file=C:\My Files\my.ini"`: the quote stands before the option.
        None if before.ends_with('"') => after.split('"').next()?,
        None => after.split(' ').next()?,
    };
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::argument;

    #[test]
    fn arguments_are_found_with_and_without_quotes() {
        let command = "\"C:\\pg\\bin\\pg_ctl.exe\" runservice -N \"postgresql-x64-16\" -D \"C:\\pg data\\16\" -w";
        assert_eq!(argument(command, "-D").as_deref(), Some("C:\\pg data\\16"));
        let command = "\"C:\\mysqld.exe\" \"--defaults-file=C:\\Program Data\\my.ini\" MySQL80";
        assert_eq!(argument(command, "--defaults-file=").as_deref(), Some("C:\\Program Data\\my.ini"));
        assert_eq!(argument("x --dbpath D:\\data -v", "--dbpath").as_deref(), Some("D:\\data"));
        assert_eq!(argument("x", "-D"), None);
    }
}
