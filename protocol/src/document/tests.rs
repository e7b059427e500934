use super::*;
use guestkit_domain::Time;

#[test]
fn smoke() {
    let doc = br#"{"$schema":"x","version":"1.0","job_id":"job-00000001","kind":"VMOperation","operation":"guestkit.inspect",
    "execution":{"priority":11,"timeout_secs":3},
    "payload":{"type":"guestkit.inspect.v1","data":{"image":{"path":"/srv/a.qcow2","format":"qcow"},"options":{"include_pakages":true}}}}"#;
    let refusal = parse(doc).expect_err("problems");
    println!("{refusal}");
    let doc = br#"{"$schema":"x","version":"1.0","kind":"VMOperation","operation":"guestkit.inspect",
    "payload":{"type":"guestkit.inspect.v1","data":{"image":{"path":"/srv/a.qcow2","format":"qcow2"},"options":{"include_packages":true}}}}"#;
    let checked = check(parse(doc).unwrap(), Source::Network, Time(1_790_000_000_000)).unwrap();
    println!("{:#?}", checked.spec);
    println!("{}", to_json(&checked.document));
    let typed: v1::InspectPayload = payload(&checked.document).unwrap();
    println!("{typed:?}");
    let mut result = v1::JobResult { job_id: "x".into(), metrics: Some(Default::default()), ..Default::default() };
    set_report(
        &mut result,
        "guestkit.inspect",
        serde_json::json!({"image_path": "/a", "warnings": [], "image": {"virtual_size_bytes": 5, "path":"/a"}}),
    )
    .unwrap();
    println!("{}", result_to_json(&result));
}
