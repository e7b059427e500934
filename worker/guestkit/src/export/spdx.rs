//! A software bill of materials: SPDX 2.3 in JSON. Source: the SPDX specification 2.3, `spdx-schema.json`.

use serde_json::{Value, json};

use crate::guest::report::{GuestSystem, InspectReport, Package};

use super::cyclonedx::url;
use super::{file_name, installed, system_name, uuid_of};

/// `report` as an SPDX document: the image contains systems, which contain packages.
pub(super) fn render(report: &InspectReport, created_at: &str) -> String {
    let mut packages = vec![image_package(report)];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    for (number, system) in (1..).zip(&report.systems) {
        let own = format!("SPDXRef-System-{number}");
        packages.push(system_package(&own, system));
        relationships.push(relationship("SPDXRef-Image", "CONTAINS", &own));
        for (index, package) in (1..).zip(installed(system)) {
            let id = format!("{own}-Package-{index}");
            packages.push(package_of(&id, package));
            relationships.push(relationship(&own, "CONTAINS", &id));
        }
    }
    let name = file_name(&report.image_path);
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/guestkit-{}", uuid_of(report)),
        "creationInfo": {
            "created": created_at,
            "creators": [format!("Tool: guestkit-{}", report.summary.engine_version)],
        },
        "packages": packages,
        "relationships": relationships,
    });
    format!("{document:#}\n")
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// What every package of such a document has.
fn package(id: &str, name: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    })
}

fn set(package: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(package), Some(value)) = (package.as_object_mut(), value) {
        package.insert(key.to_owned(), value);
    }
}

fn text(value: &Option<String>) -> Option<Value> {
    value.as_deref().filter(|value| !value.is_empty()).map(Value::from)
}

fn image_package(report: &InspectReport) -> Value {
    let mut image = package("SPDXRef-Image", file_name(&report.image_path));
    set(&mut image, "primaryPackagePurpose", Some("FILE".into()));
    let checksum = report.image.sha256.as_ref();
    set(&mut image, "checksums", checksum.map(|sum| json!([{ "algorithm": "SHA256", "checksumValue": sum }])));
    image
}

fn system_package(id: &str, system: &GuestSystem) -> Value {
    let os = &system.operating_system;
    let mut found = package(id, os.distribution.as_deref().unwrap_or(&os.r#type));
    set(&mut found, "primaryPackagePurpose", Some("OPERATING-SYSTEM".into()));
    set(&mut found, "versionInfo", text(&os.version));
    set(&mut found, "summary", Some(system_name(system).into()));
    set(&mut found, "homepage", os.home_url.as_deref().and_then(url).map(Value::from));
    found
}

fn package_of(id: &str, of: &Package) -> Value {
    let mut found = package(id, &of.name);
    set(&mut found, "versionInfo", text(&Some(of.full_version.clone())));
    // The database does not say whether this is a person or an organization; most are the latter.
    let supplier = of.vendor.as_deref().map(|vendor| vendor.replace(['\n', '\r'], " "));
    let supplier = supplier.filter(|vendor| !vendor.is_empty()).map(|vendor| format!("Organization: {vendor}"));
    set(&mut found, "supplier", Some(supplier.unwrap_or_else(|| "NOASSERTION".to_owned()).into()));
    set(&mut found, "summary", text(&of.summary));
    set(&mut found, "homepage", of.url.as_deref().and_then(url).map(Value::from));
    let source = match (&of.source, &of.source_version) {
        (Some(source), Some(version)) => Some(format!("built from source package {source} {version}")),
        (Some(source), None) => Some(format!("built from source package {source}")),
        _ => None,
    };
    set(&mut found, "sourceInfo", source.map(Value::from));
    // The database's own words, which need not be an SPDX expression.
    let license = of.license.as_ref().filter(|license| !license.is_empty());
    set(&mut found, "licenseComments", license.map(|license| format!("declared in the package as {license}").into()));
    let purl = of.purl.as_ref().map(|purl| {
        json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }])
    });
    set(&mut found, "externalRefs", purl);
    found
}
