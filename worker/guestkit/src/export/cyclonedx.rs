//! A software bill of materials: CycloneDX 1.6 in JSON. Source: ECMA-424, `bom-1.6.schema.json`.

use serde_json::{Value, json};

use crate::guest::report::{GuestSystem, InspectReport, Package};

use super::{file_name, installed, system_name, uuid_of};

/// `report` as a bill of materials: the image, its systems, and what is installed in each.
pub(super) fn render(report: &InspectReport, created_at: &str) -> String {
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    let mut systems = Vec::new();
    for (number, system) in (1..).zip(&report.systems) {
        let reference = format!("system-{number}");
        let packages: Vec<(String, Value)> = (1..)
            .zip(installed(system))
            .map(|(index, package)| {
                let own = format!("{reference}-package-{index}");
                let component = package_component(&own, package);
                (own, component)
            })
            .collect();
        components.push(system_component(&reference, system));
        let owned: Vec<&String> = packages.iter().map(|(own, _)| own).collect();
        dependencies.push(json!({ "ref": reference, "dependsOn": owned }));
        components.extend(packages.into_iter().map(|(_, component)| component));
        systems.push(reference);
    }
    dependencies.insert(0, json!({ "ref": "image", "dependsOn": systems }));
    let bom = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid_of(report)),
        "version": 1,
        "metadata": {
            "timestamp": created_at,
            "lifecycles": [{ "phase": "operations" }],
            "tools": { "components": [{
                "type": "application",
                "name": "guestkit",
                "version": report.summary.engine_version,
            }] },
            "component": image_component(report),
        },
        "components": components,
        "dependencies": dependencies,
    });
    format!("{bom:#}\n")
}

fn image_component(report: &InspectReport) -> Value {
    let mut image = json!({ "type": "file", "bom-ref": "image", "name": file_name(&report.image_path) });
    if let (Some(image), Some(sum)) = (image.as_object_mut(), &report.image.sha256) {
        image.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": sum }]));
    }
    image
}

fn system_component(reference: &str, system: &GuestSystem) -> Value {
    let os = &system.operating_system;
    let mut component = json!({
        "type": "operating-system",
        "bom-ref": reference,
        "name": os.distribution.as_deref().unwrap_or(&os.r#type),
        "description": system_name(system),
    });
    let properties = [
        ("guestkit:root", Some(system.root.as_str())),
        ("guestkit:arch", os.arch.as_deref()),
        ("guestkit:hostname", os.hostname.as_deref()),
        ("guestkit:osinfo", os.osinfo.as_deref()),
        ("guestkit:codename", os.codename.as_deref()),
    ];
    set(&mut component, "version", os.version.as_deref());
    set_properties(&mut component, &properties);
    if let (Some(component), Some(url)) = (component.as_object_mut(), os.home_url.as_deref().and_then(url)) {
        component.insert("externalReferences".to_owned(), json!([{ "type": "website", "url": url }]));
    }
    component
}

fn package_component(reference: &str, package: &Package) -> Value {
    let mut component = json!({ "type": "library", "bom-ref": reference, "name": package.name });
    set(&mut component, "version", Some(package.full_version.as_str()));
    set(&mut component, "publisher", package.vendor.as_deref());
    set(&mut component, "description", package.summary.as_deref());
    set(&mut component, "purl", package.purl.as_deref());
    let properties = [
        ("guestkit:format", Some(package.format.as_str())),
        ("guestkit:arch", package.arch.as_deref()),
        ("guestkit:source", package.source.as_deref()),
        ("guestkit:source_version", package.source_version.as_deref()),
        ("guestkit:installed_at", package.installed_at.as_deref()),
    ];
    set_properties(&mut component, &properties);
    if let Some(component) = component.as_object_mut() {
        if let Some(license) = package.license.as_ref().filter(|license| !license.is_empty()) {
            // The database's own words: whether they are an SPDX expression only a reader of them could tell.
            component.insert("licenses".to_owned(), json!([{ "license": { "name": license } }]));
        }
        if let Some(url) = package.url.as_deref().and_then(url) {
            component.insert("externalReferences".to_owned(), json!([{ "type": "website", "url": url }]));
        }
    }
    component
}

fn set(component: &mut Value, key: &str, value: Option<&str>) {
    if let (Some(component), Some(value)) = (component.as_object_mut(), value.filter(|value| !value.is_empty())) {
        component.insert(key.to_owned(), value.into());
    }
}

fn set_properties(component: &mut Value, properties: &[(&str, Option<&str>)]) {
    let known: Vec<Value> = properties
        .iter()
        .filter_map(|(name, value)| Some(json!({ "name": name, "value": (*value)?.to_owned() })))
        .collect();
    if let Some(component) = component.as_object_mut().filter(|_| !known.is_empty()) {
        component.insert("properties".to_owned(), known.into());
    }
}

/// A text that can stand where an IRI is asked for.
pub(super) fn url(text: &str) -> Option<&str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte));
    (is_plain && (text.starts_with("http://") || text.starts_with("https://"))).then_some(text)
}
