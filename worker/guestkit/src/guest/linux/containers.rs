//! Containers: what runs them, and which images and containers are kept, read from the files of each storage while nothing runs.
//!
//! Sources: moby's `image/fs.go`, `reference/store.go` and `container/container.go` (`/var/lib/docker`); containers/storage's
//! `images.go` and `containers.go`, storage.conf(5); containerd's `metadata/buckets.go` (the schema of meta.db).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::guest::bolt::{Bolt, Bucket};
use crate::guest::report::{Container, ContainerImage, ContainerRuntime, Containers, Package, Services};

use super::files::Files;
use super::security::is_enabled;
use super::time;

/// Images and containers of one guest: a node of a cluster keeps hundreds.
const KEPT_MAX: usize = 20_000;

/// A program that runs containers: its packages, its services, and where it keeps them.
struct Known {
    name: &'static str,
    packages: &'static [&'static str],
    services: &'static [&'static str],
    programs: &'static [&'static str],
    data: &'static [&'static str],
}

const KNOWN: [Known; 14] = [
    Known {
        name: "docker",
        packages: &["docker-ce", "docker.io", "moby-engine", "docker", "docker-engine", "docker-ee"],
        services: &["docker.service", "docker.socket", "docker"],
        programs: &["/usr/bin/dockerd", "/usr/local/bin/dockerd"],
        data: &["/var/lib/docker"],
    },
    Known {
        name: "containerd",
        packages: &["containerd", "containerd.io", "moby-containerd"],
        services: &["containerd.service", "containerd"],
        programs: &["/usr/bin/containerd", "/usr/local/bin/containerd"],
        data: &["/var/lib/containerd"],
    },
    Known {
        name: "podman",
        packages: &["podman"],
        services: &["podman.socket", "podman.service", "podman"],
        programs: &["/usr/bin/podman"],
        data: &["/var/lib/containers/storage"],
    },
    Known {
        name: "cri-o",
        packages: &["cri-o", "cri-o-runc"],
        services: &["crio.service", "crio"],
        programs: &["/usr/bin/crio", "/usr/local/bin/crio"],
        data: &["/var/lib/containers/storage"],
    },
    Known {
        name: "lxc",
        packages: &["lxc", "lxc-utils"],
        services: &["lxc.service", "lxc"],
        programs: &["/usr/bin/lxc-start"],
        data: &["/var/lib/lxc"],
    },
    Known {
        name: "lxd",
        packages: &["lxd"],
        services: &["snap.lxd.daemon.service", "lxd.service"],
        programs: &[],
        data: &["/var/snap/lxd/common/lxd", "/var/lib/lxd"],
    },
    Known {
        name: "incus",
        packages: &["incus"],
        services: &["incus.service", "incus.socket"],
        programs: &[],
        data: &["/var/lib/incus"],
    },
    Known {
        name: "systemd-nspawn",
        packages: &["systemd-container"],
        services: &["machines.target"],
        programs: &["/usr/bin/systemd-nspawn"],
        data: &["/var/lib/machines"],
    },
    Known {
        name: "kubelet",
        packages: &["kubelet", "kubernetes-node", "kubernetes1.30-kubeadm"],
        services: &["kubelet.service", "kubelet"],
        programs: &["/usr/bin/kubelet", "/usr/local/bin/kubelet"],
        data: &["/var/lib/kubelet"],
    },
    Known {
        name: "k3s",
        packages: &["k3s"],
        services: &["k3s.service", "k3s-agent.service"],
        programs: &["/usr/local/bin/k3s", "/usr/bin/k3s"],
        data: &["/var/lib/rancher/k3s"],
    },
    Known {
        name: "rke2",
        packages: &["rke2-server", "rke2-agent"],
        services: &["rke2-server.service", "rke2-agent.service"],
        programs: &["/usr/local/bin/rke2"],
        data: &["/var/lib/rancher/rke2"],
    },
    Known {
        name: "apptainer",
        packages: &["apptainer", "singularity-container", "singularity"],
        services: &[],
        programs: &["/usr/bin/apptainer", "/usr/bin/singularity"],
        data: &[],
    },
    Known {
        name: "runc",
        packages: &["runc"],
        services: &[],
        programs: &["/usr/bin/runc", "/usr/sbin/runc"],
        data: &[],
    },
    Known { name: "crun", packages: &["crun"], services: &[], programs: &["/usr/bin/crun"], data: &[] },
];

/// The facts; `None` where nothing of the kind was found.
pub(super) fn read(files: &Files<'_>, packages: &[Package], services: &Services) -> Option<Containers> {
    let docker_root = docker_root(files);
    let mut found = Containers {
        runtimes: KNOWN
            .iter()
            .filter_map(|known| runtime(files, known, docker_root.as_ref(), packages, services))
            .collect(),
        ..Containers::default()
    };
    found.runtimes.sort_by(|a, b| a.name.cmp(&b.name));
    docker(files, docker_root, &mut found);
    for storage in container_storages(files) {
        containers_storage(files, &storage, &mut found);
    }
    containerd(files, &mut found);
    let kept = found.images.len().max(found.containers.len());
    if kept > KEPT_MAX {
        files.warn("containers", format!("{kept} are kept; those past the first {KEPT_MAX} are left out"));
    }
    found.images.truncate(KEPT_MAX);
    found.containers.truncate(KEPT_MAX);
    found.images.sort_by(|a, b| (&a.storage, &a.names, &a.path).cmp(&(&b.storage, &b.names, &b.path)));
    found.containers.sort_by(|a, b| (&a.storage, &a.name, &a.id).cmp(&(&b.storage, &b.name, &b.id)));
    (found != Containers::default()).then_some(found)
}

fn runtime(
    files: &Files<'_>,
    known: &Known,
    docker_root: Option<&String>,
    packages: &[Package],
    services: &Services,
) -> Option<ContainerRuntime> {
    let is_its = |package: &&Package| {
        // Debian's `docker` was a dock for icons until it was called wmdocker.
        package.state == "installed"
            && known.packages.contains(&package.name.as_str())
            && !(package.name == "docker" && package.format == "deb")
    };
    let package = packages.iter().find(is_its);
    let program = if package.is_none() { files.first_existing(known.programs) } else { None };
    if package.is_none() && program.is_none() {
        return None;
    }
    let own = docker_root.filter(|root| known.name == "docker" && files.is_dir(root)).cloned();
    let mut units =
        known.services.iter().filter_map(|name| services.units.iter().find(|unit| unit.name == *name)).peekable();
    let has_unit = units.peek().is_some();
    Some(ContainerRuntime {
        name: known.name.to_owned(),
        package: package.map(|package| package.name.clone()),
        version: package.map(|package| package.full_version.clone()),
        enabled: has_unit.then(|| units.any(|unit| is_enabled(services, &unit.name))),
        data_directory: own.or_else(|| files.first_existing(known.data).map(str::to_owned)),
    })
}

/// Text of a file as JSON; what is none is told and passed over.
fn json<T: for<'de> Deserialize<'de>>(files: &Files<'_>, path: &str) -> Option<T> {
    let bytes = files.bytes(path)?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            files.warn(path, format!("is not the JSON that is kept there: {error}"));
            None
        }
    }
}

#[derive(Deserialize)]
struct Daemon {
    #[serde(rename = "data-root", alias = "graph")]
    data_root: Option<String>,
}

/// Where daemon.json says that Docker keeps everything, where it says so.
fn docker_root(files: &Files<'_>) -> Option<String> {
    json::<Daemon>(files, "/etc/docker/daemon.json")?.data_root.filter(|path| path.starts_with('/'))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Repositories {
    #[serde(rename = "Repositories")]
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

/// The configuration of an image (OCI image specification, "Image Configuration"), which Docker keeps by its sum.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ImageConfig {
    created: Option<String>,
    architecture: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerContainer {
    #[serde(rename = "ID")]
    id: String,
    created: Option<String>,
    name: Option<String>,
    config: DockerConfig,
    state: DockerState,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerConfig {
    image: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerState {
    running: bool,
    paused: bool,
    dead: bool,
    started_at: Option<String>,
}

impl DockerState {
    /// As `docker ps` names it. Source: moby's `container/state.go`, `StateString`.
    fn name(&self) -> &'static str {
        let has_run = self.started_at.as_deref().is_some_and(|at| !at.starts_with("0001-"));
        match self {
            Self { running: true, paused: true, .. } => "paused",
            Self { running: true, .. } => "running",
            Self { dead: true, .. } => "dead",
            _ if has_run => "exited",
            _ => "created",
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostConfig {
    restart_policy: RestartPolicy,
    privileged: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RestartPolicy {
    name: String,
}

fn docker(files: &Files<'_>, root: Option<String>, found: &mut Containers) {
    let mut roots = vec!["/var/lib/docker".to_owned()];
    roots.extend(root.filter(|root| root != "/var/lib/docker"));
    roots.extend(files.homes().into_iter().map(|home| format!("{home}/.local/share/docker")));
    for root in roots.into_iter().filter(|root| files.is_dir(root)) {
        for driver in files.names(&format!("{root}/image")) {
            docker_images(files, &format!("{root}/image/{driver}"), found);
        }
        for id in files.names(&format!("{root}/containers")).into_iter().take(KEPT_MAX) {
            docker_container(files, &format!("{root}/containers/{id}"), found);
        }
    }
}

fn docker_images(files: &Files<'_>, folder: &str, found: &mut Containers) {
    let mut names: BTreeMap<String, (Vec<String>, Option<String>)> = BTreeMap::new();
    let repositories: Repositories = json(files, &format!("{folder}/repositories.json")).unwrap_or_default();
    for (name, id) in repositories.repositories.into_values().flatten() {
        let entry = names.entry(id).or_default();
        match name.split_once('@') {
            Some((_, digest)) => entry.1 = Some(digest.to_owned()),
            None => entry.0.push(name),
        }
    }
    let configs = format!("{folder}/imagedb/content/sha256");
    for sum in files.names(&configs).into_iter().take(KEPT_MAX) {
        let path = format!("{configs}/{sum}");
        let Some(config) = json::<ImageConfig>(files, &path) else { continue };
        let id = format!("sha256:{sum}");
        let (names, digest) = names.remove(&id).unwrap_or_default();
        found.images.push(ContainerImage {
            names,
            digest,
            created_at: config.created.as_deref().and_then(time::normalised),
            arch: config.architecture,
            storage: "docker".to_owned(),
            path,
            namespace: None,
            id: Some(id),
        });
    }
}

fn docker_container(files: &Files<'_>, folder: &str, found: &mut Containers) {
    let path = format!("{folder}/config.v2.json");
    let Some(container) = json::<DockerContainer>(files, &path) else { return };
    let host: Option<HostConfig> = json(files, &format!("{folder}/hostconfig.json"));
    found.containers.push(Container {
        name: container.name.as_deref().map(|name| name.trim_start_matches('/').to_owned()),
        image: container.config.image,
        state: Some(container.state.name().to_owned()),
        restart_policy: host.as_ref().map(|host| host.restart_policy.name.clone()).filter(|name| !name.is_empty()),
        privileged: host.map(|host| host.privileged),
        created_at: container.created.as_deref().and_then(time::normalised),
        storage: "docker".to_owned(),
        path,
        namespace: None,
        id: container.id,
    });
}

/// Where containers/storage keeps things: its place, what storage.conf says, and that of each user.
fn container_storages(files: &Files<'_>) -> Vec<String> {
    let mut storages = vec!["/var/lib/containers/storage".to_owned()];
    for path in ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"] {
        let Some(text) = files.text(path) else { continue };
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        let said = lines
            .find(|(key, _)| key.trim() == "graphroot")
            .map(|(_, value)| value.trim().trim_matches('"').to_owned());
        storages.extend(said.filter(|path| path.starts_with('/')));
        break;
    }
    storages.extend(files.homes().into_iter().map(|home| format!("{home}/.local/share/containers/storage")));
    storages.sort();
    storages.dedup();
    storages.retain(|path| files.is_dir(path));
    storages
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredImage {
    id: String,
    digest: Option<String>,
    names: Option<Vec<String>>,
    created: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredContainer {
    id: String,
    names: Option<Vec<String>>,
    metadata: Option<String>,
    created: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredMetadata {
    #[serde(rename = "image-name")]
    image_name: Option<String>,
}

fn containers_storage(files: &Files<'_>, storage: &str, found: &mut Containers) {
    let folders = files.names(storage);
    for folder in folders.iter().filter(|name| name.ends_with("-images")) {
        let path = format!("{storage}/{folder}/images.json");
        for image in json::<Vec<StoredImage>>(files, &path).unwrap_or_default().into_iter().take(KEPT_MAX) {
            found.images.push(ContainerImage {
                names: image.names.unwrap_or_default(),
                id: Some(format!("sha256:{}", image.id)),
                digest: image.digest,
                created_at: image.created.as_deref().and_then(time::normalised),
                arch: None,
                storage: "containers-storage".to_owned(),
                path: path.clone(),
                namespace: None,
            });
        }
    }
    for folder in folders.iter().filter(|name| name.ends_with("-containers")) {
        let path = format!("{storage}/{folder}/containers.json");
        for container in json::<Vec<StoredContainer>>(files, &path).unwrap_or_default().into_iter().take(KEPT_MAX) {
            let metadata: Option<StoredMetadata> =
                container.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
            found.containers.push(Container {
                id: container.id,
                name: container.names.and_then(|names| names.into_iter().next()),
                image: metadata.and_then(|metadata| metadata.image_name),
                created_at: container.created.as_deref().and_then(time::normalised),
                storage: "containers-storage".to_owned(),
                path: path.clone(),
                ..Container::default()
            });
        }
    }
}

/// Where containerd, alone or in a distribution of Kubernetes, keeps its metadata.
const CONTAINERD: [&str; 4] = [
    "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db",
    "/var/lib/rancher/k3s/agent/containerd/io.containerd.metadata.v1.bolt/meta.db",
    "/var/lib/rancher/rke2/agent/containerd/io.containerd.metadata.v1.bolt/meta.db",
    "/var/lib/docker/containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
];

fn containerd(files: &Files<'_>, found: &mut Containers) {
    for path in CONTAINERD {
        let Some(file) = files.open(path) else { continue };
        let read = Bolt::open(&file).and_then(|bolt| metadata(&bolt, path, found));
        if let Err(error) = read {
            files.warn_error(path, &error);
        }
    }
}

/// `v1/NAMESPACE/images/NAME/target/digest`, `v1/NAMESPACE/containers/ID/image`.
fn metadata(bolt: &Bolt<'_>, path: &str, found: &mut Containers) -> crate::Result<()> {
    let Some(namespaces) = bolt.bucket(&[b"v1"])? else { return Ok(()) };
    for name in namespaces.buckets() {
        let Some(namespace) = bolt.child(&namespaces, name)? else { continue };
        let told = text(name);
        if let Some(images) = bolt.child(&namespace, b"images")? {
            for name in images.buckets().take(KEPT_MAX) {
                let Some(image) = bolt.child(&images, name)? else { continue };
                let target = bolt.child(&image, b"target")?;
                let name = text(name);
                // The interface for Kubernetes keeps an image once more under the sum of its configuration.
                if name.starts_with("sha256:") {
                    continue;
                }
                found.images.push(ContainerImage {
                    names: vec![name],
                    digest: target.as_ref().and_then(|target| target.value(b"digest")).map(text),
                    storage: "containerd".to_owned(),
                    path: path.to_owned(),
                    namespace: Some(told.clone()),
                    ..ContainerImage::default()
                });
            }
        }
        if let Some(containers) = bolt.child(&namespace, b"containers")? {
            for id in containers.buckets().take(KEPT_MAX) {
                let Some(container) = bolt.child(&containers, id)? else { continue };
                found.containers.push(Container {
                    id: text(id),
                    name: container_name(bolt, &container)?,
                    image: container.value(b"image").map(text).filter(|image| !image.is_empty()),
                    created_at: container.value(b"createdat").and_then(go_time).and_then(time::rfc3339),
                    storage: "containerd".to_owned(),
                    path: path.to_owned(),
                    namespace: Some(told.clone()),
                    ..Container::default()
                });
            }
        }
    }
    Ok(())
}

/// The name that Kubernetes, nerdctl or the user gave it, as a label.
fn container_name(bolt: &Bolt<'_>, container: &Bucket) -> crate::Result<Option<String>> {
    let Some(labels) = bolt.child(container, b"labels")? else { return Ok(None) };
    let names: [&[u8]; 2] = [b"io.kubernetes.container.name", b"nerdctl/name"];
    Ok(names.iter().find_map(|name| labels.value(name)).map(text))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Seconds since 1970 of a Go time: a version, seconds since the year 1, big-endian. Source: Go's `time.Time.MarshalBinary`.
fn go_time(bytes: &[u8]) -> Option<i64> {
    const YEAR_ONE: i64 = 62_135_596_800;
    let seconds = crate::bytes::be_u64(bytes, 1)?;
    i64::try_from(seconds).ok()?.checked_sub(YEAR_ONE)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::guest::linux::fixture::Fixture;

    /// Docker 20.10, Podman 4.3 and containerd 1.6 kept these; the names, sums and times are those that `docker ps`,
    /// `docker images`, `podman images`, `ctr images list` and `ctr containers list` printed of them.
    fn storages() -> Fixture {
        let fixture = Fixture::new();
        let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/containers/storages.tar.xz");
        let unpacked = Command::new("tar").args(["-xJf", archive, "-C"]).arg(fixture.path()).status();
        assert!(unpacked.unwrap().success());
        fixture
    }

    const ID: &str = "sha256:8b64ccd9b54335ecfd8f7d156d0b6dc8932a791df210bd8b35cb274ebd41c794";

    #[test]
    fn images_and_containers_of_every_storage_are_told() {
        let fixture = storages();
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let found = read(&files, &[], &Services::default()).unwrap();
        assert!(files.into_warnings().is_empty());
        let of = |storage: &str| found.images.iter().filter(|image| image.storage == storage).collect::<Vec<_>>();
        let [docker] = of("docker")[..] else { panic!() };
        assert_eq!(docker.names, ["example.org/tools/shell:1.0"]);
        assert_eq!((docker.id.as_deref(), docker.arch.as_deref()), (Some(ID), Some("amd64")));
        assert_eq!(docker.created_at.as_deref(), Some("2026-01-02T03:04:05Z"));
        let [user, system] = of("containers-storage")[..] else { panic!() };
        assert!(user.path.starts_with("/home/alice/") && system.path.starts_with("/var/lib/containers/"));
        let digest = "sha256:c5fb6fec1e4c3777fe608ae8b35c09a4e194b24591041bfce6f7742bd2c9a8e5";
        assert_eq!((system.id.as_deref(), system.digest.as_deref()), (Some(ID), Some(digest)));
        let containerd = of("containerd");
        assert_eq!(containerd.len(), 302, "301 in default, one in k8s.io");
        let digest = "sha256:e0c91f855055891c35d366f7d82d844c931b9b7b7444cd3d9982601a3b5e6b4c";
        assert!(containerd.iter().all(|image| image.digest.as_deref() == Some(digest)));

        let told: Vec<_> = found
            .containers
            .iter()
            .map(|one| (one.storage.as_str(), one.name.as_deref(), one.image.as_deref(), one.state.as_deref()))
            .collect();
        let image = Some("example.org/tools/shell:1.0");
        assert_eq!(
            told,
            [
                ("containerd", None, image, None),
                ("containers-storage", Some("web"), image, None),
                ("docker", Some("web"), image, Some("created")),
            ]
        );
        let [ctr, podman, docker] = &found.containers[..] else { panic!() };
        assert_eq!((ctr.id.as_str(), ctr.namespace.as_deref()), ("shell-1", Some("default")));
        assert!(ctr.created_at.as_deref().unwrap().starts_with("2026-11-26T22:20:2"), "{ctr:?}");
        assert_eq!(podman.created_at.as_deref(), Some("2026-11-26T22:20:01Z"));
        assert_eq!((docker.restart_policy.as_deref(), docker.privileged), (Some("always"), Some(false)));
    }

    /// Bytes of the database's first pages, spoiled: an answer or an error.
    #[test]
    fn a_spoiled_database_is_an_error_or_an_answer() {
        let fixture = storages();
        let path = fixture.path().join("var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db");
        let mut bytes = std::fs::read(path).unwrap();
        for at in (0..bytes.len().min(96 * 1024)).step_by(59) {
            bytes[at] ^= 0xff;
            let mut found = Containers::default();
            let read = Bolt::open(&bytes).and_then(|bolt| metadata(&bolt, "", &mut found));
            assert!(read.is_ok() || matches!(read, Err(crate::Error::Corrupt { .. })), "{at}: {read:?}");
            bytes[at] ^= 0xff;
        }
    }

    #[test]
    fn what_runs_them_is_told_by_its_package_or_program() {
        let fixture = Fixture::new();
        fixture.file("usr/local/bin/k3s", "");
        fixture.file("etc/docker/daemon.json", "{\"data-root\": \"/srv/docker\"}");
        fixture.directory("srv/docker/containers");
        let package = Package {
            name: "docker-ce".to_owned(),
            state: "installed".to_owned(),
            full_version: "5:24.0.7-1".to_owned(),
            ..Package::default()
        };
        let tree = fixture.tree();
        let found = read(&Files::new(&tree), &[package], &Services::default()).unwrap();
        let told: Vec<_> =
            found.runtimes.iter().map(|one| (one.name.as_str(), one.data_directory.as_deref())).collect();
        assert_eq!(told, [("docker", Some("/srv/docker")), ("k3s", None)]);
        let empty = Fixture::new();
        empty.file("etc/passwd", "");
        let tree = empty.tree();
        assert_eq!(read(&Files::new(&tree), &[], &Services::default()), None);
    }
}
