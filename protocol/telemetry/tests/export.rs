//! Spans reach a collector: the receiver is the OpenTelemetry project's own generated service.

use std::time::Duration;

use guestkit_telemetry::{Settings, init, join};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joined_span_reaches_the_collector() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = TraceServiceServer::new(Collector(sender));
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)),
    );

    let guard = init("guestkit-test", &Settings { otlp_endpoint: Some(endpoint), ..Settings::default() }).unwrap();
    let span = tracing::info_span!("attempt", job = "job-00000001");
    join(&span, "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    span.in_scope(|| tracing::info!("running"));
    drop(span);
    tokio::task::spawn_blocking(move || drop(guard)).await.unwrap();

    let request = tokio::time::timeout(Duration::from_secs(20), received.recv()).await.unwrap().unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "attempt");
    assert_eq!(span.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert!(span.attributes.iter().any(|attribute| attribute.key == "job"));
}
