//! Results too large for the session: uploaded in pieces, then said as an outcome that refers to them. An upload that breaks
//! is taken up where the coordinator has it; one that the coordinator will never take ends the job with the reason.

use std::sync::Arc;
use std::time::Duration;

use guestkit_domain::ErrorCode;
use guestkit_protocol::client;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::stream::{outcome_of, told};
use crate::failure::Failure;
use crate::output::hex;

/// The report's name, beneath its job.
const NAME: &str = "report";
/// Bytes of one piece of an artifact, as the protocol bounds them.
const PIECE_BYTES: usize = 256 << 10;
/// Between two tries of an upload that broke.
const RETRY: Duration = Duration::from_secs(2);
/// Tries whose content the coordinator found to be another: the first may have gone on from what a power cut damaged there,
/// the next begins anew. After that something between here and there changes the bytes.
const DAMAGED_TRIES_MAX: u32 = 3;

/// Uploads an outcome's result and gives the outcome that refers to it, or the one that says why it could not be. Tries
/// until one of both is sure; the caller drops it when the lease or the stream is over.
pub(super) async fn by_reference(channel: Channel, outcome: Arc<v1::Outcome>, bytes_max: u64) -> v1::Outcome {
    let artifact = artifact(&outcome);
    let mut damaged = 0;
    loop {
        let Err(status) = put(channel.clone(), &outcome, &artifact).await else { break };
        let why = told(&status);
        damaged += u32::from(status.code() == Code::InvalidArgument);
        if is_final(&status) || damaged >= DAMAGED_TRIES_MAX {
            tracing::error!(lease = outcome.lease_id, "a report cannot be uploaded: {why}");
            return without_report(&outcome, bytes_max, &why);
        }
        tracing::warn!(lease = outcome.lease_id, "the upload of a report broke, trying again: {why}");
        tokio::time::sleep(RETRY).await;
    }
    tracing::info!(lease = outcome.lease_id, bytes = artifact.size_bytes, "report uploaded");
    let mut result = decoded(&outcome);
    result.report = None;
    result.report_artifact = Some(artifact);
    let referring = outcome_of(outcome.lease_id, &result);
    match referring.result.len() as u64 {
        rest if rest <= bytes_max => referring,
        rest => without_report(&outcome, bytes_max, &format!("what remains without it has {rest} bytes")),
    }
}

/// Whether trying again cannot help: the artifact is too large, the lease is over, or artifacts are not taken at all.
fn is_final(status: &Status) -> bool {
    let reason = Refusal::from_status(status).map(|refusal| refusal.reason);
    status.code() == Code::Unimplemented || matches!(reason, Some(Reason::TooLarge | Reason::LeaseNotCurrent))
}

fn artifact(outcome: &v1::Outcome) -> v1::Artifact {
    v1::Artifact {
        name: NAME.into(),
        media_type: "application/x-protobuf".into(),
        size_bytes: outcome.result.len() as u64,
        sha256: hex(&outcome.result_sha256),
        ..Default::default()
    }
}

/// Asks how much the coordinator has, and sends the rest.
async fn put(channel: Channel, outcome: &Arc<v1::Outcome>, artifact: &v1::Artifact) -> Result<(), Status> {
    let mut workers = client::workers(channel);
    let header = v1::ArtifactHeader { lease_id: outcome.lease_id, artifact: Some(artifact.clone()) };
    let first = v1::PutArtifactRequest { header: Some(header), ..Default::default() };
    let stored = workers.put_artifact(tokio_stream::iter([first.clone()])).await?.into_inner().stored_bytes;
    if stored >= artifact.size_bytes {
        return Ok(());
    }
    let rest = pieces(Arc::clone(outcome), stored);
    let stored = workers.put_artifact(tokio_stream::iter(std::iter::once(first).chain(rest))).await?;
    match stored.into_inner().stored_bytes {
        stored if stored == artifact.size_bytes => Ok(()),
        stored => Err(Status::aborted(format!("the coordinator has {stored} of {} bytes", artifact.size_bytes))),
    }
}

/// The result from a byte on, each piece made when it is sent.
fn pieces(outcome: Arc<v1::Outcome>, from: u64) -> impl Iterator<Item = v1::PutArtifactRequest> + Send + 'static {
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(outcome.result.len());
    (from..outcome.result.len()).step_by(PIECE_BYTES).map(move |offset| {
        let data = outcome.result.get(offset..).unwrap_or_default();
        let data = data.get(..PIECE_BYTES).unwrap_or(data).to_vec();
        v1::PutArtifactRequest { header: None, offset: offset as u64, data }
    })
}

/// The outcome of a report that nothing carries: a failure that says why, because a job must end. What the job wrote to its
/// own destination stands, and is named in the result.
fn without_report(outcome: &v1::Outcome, bytes_max: u64, why: &str) -> v1::Outcome {
    let bytes = outcome.result.len();
    let text = format!("the report has {bytes} bytes, a session carries {bytes_max}, and it cannot be uploaded: {why}");
    let failure = Failure::new(ErrorCode::LimitExceeded, text)
        .with("limit", "inline_bytes_max")
        .with("value", bytes_max)
        .with("actual_bytes", bytes);
    let mut result = decoded(outcome);
    result.report = None;
    result.status = "failed".into();
    result.failed_at = result.completed_at.take().or(result.failed_at);
    result.error = Some(failure.to_job_error("export"));
    outcome_of(outcome.lease_id, &result)
}

/// The result inside an outcome of our own making; the spool has checked what it read back.
fn decoded(outcome: &v1::Outcome) -> v1::JobResult {
    v1::JobResult::decode(outcome.result.as_slice()).unwrap_or_else(|_| v1::JobResult {
        job_id: outcome.job_id.clone(),
        error: outcome.error.clone(),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tonic::{Request, Response, Streaming};

    use super::*;

    fn outcome_with(bytes: usize) -> v1::Outcome {
        let echo = v1::EchoReport { message: Some("x".repeat(bytes)), ..Default::default() };
        let report = Some(v1::job_result::Report::Echo(echo));
        let completed_at = Some(prost_types::Timestamp::default());
        let status = "completed".into();
        outcome_of(7, &v1::JobResult { job_id: "job-00001".into(), status, completed_at, report, ..Default::default() })
    }

    #[test]
    fn a_report_that_nothing_can_carry_still_ends_its_job() {
        let ended = without_report(&outcome_with(5 << 20), 1 << 20, "not served");
        assert_eq!((ended.lease_id, ended.status()), (7, v1::OutcomeStatus::Failed));
        assert_eq!(ended.error.as_ref().map(|error| error.code.as_str()), Some("LIMIT_EXCEEDED"));
        let result = decoded(&ended);
        assert!(ended.result.len() < 10_000 && result.report.is_none() && result.failed_at.is_some());
    }

    #[test]
    fn pieces_from_anywhere_make_the_rest() {
        let outcome = Arc::new(outcome_with(2 * PIECE_BYTES + 5));
        let size = outcome.result.len();
        for from in [0, 1, PIECE_BYTES, size - 1, size, size + 1, usize::MAX] {
            let mut rest = Vec::new();
            for piece in pieces(Arc::clone(&outcome), from as u64) {
                assert_eq!(piece.offset as usize, from + rest.len());
                assert!(!piece.data.is_empty() && piece.data.len() <= PIECE_BYTES);
                rest.extend(piece.data);
            }
            assert_eq!(rest, outcome.result.get(from..).unwrap_or_default(), "{from}");
        }
    }

    /// A coordinator that keeps what comes and breaks the stream after every second piece.
    #[derive(Debug, Default)]
    struct Breaking {
        stored: Mutex<Vec<u8>>,
        streams: Mutex<u32>,
    }

    #[tonic::async_trait]
    impl v1::workers_server::Workers for Breaking {
        type SessionStream = tokio_stream::Empty<Result<v1::SessionResponse, Status>>;

        async fn session(
            &self,
            _request: Request<Streaming<v1::SessionRequest>>,
        ) -> Result<Response<Self::SessionStream>, Status> {
            Ok(Response::new(tokio_stream::empty()))
        }

        async fn put_artifact(
            &self,
            request: Request<Streaming<v1::PutArtifactRequest>>,
        ) -> Result<Response<v1::PutArtifactResponse>, Status> {
            *self.streams.lock().unwrap() += 1;
            let mut requests = request.into_inner();
            let mut pieces = 0;
            while let Some(request) = requests.message().await? {
                assert_eq!(request.header.is_some(), request.data.is_empty());
                let mut stored = self.stored.lock().unwrap();
                if !request.data.is_empty() {
                    assert_eq!(request.offset, stored.len() as u64);
                    stored.extend(request.data);
                    pieces += 1;
                }
                if pieces == 2 {
                    return Err(Status::unavailable("broken"));
                }
            }
            let stored_bytes = self.stored.lock().unwrap().len() as u64;
            Ok(Response::new(v1::PutArtifactResponse { stored_bytes }))
        }
    }

    #[tokio::test]
    async fn an_upload_that_breaks_goes_on_where_it_broke() {
        let peer = Arc::new(Breaking::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints = client::Endpoints::new([format!("http://{}", listener.local_addr().unwrap())]).unwrap();
        let service = v1::workers_server::WorkersServer::from_arc(Arc::clone(&peer));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        let outcome = Arc::new(outcome_with(2 * PIECE_BYTES + 5));
        let channel = client::connect(&endpoints).await.unwrap();

        let said = by_reference(channel, Arc::clone(&outcome), 16_384).await;
        assert_eq!(*peer.stored.lock().unwrap(), outcome.result);
        assert_eq!(*peer.streams.lock().unwrap(), 4, "it asks, sends, asks again and sends the rest");
        let result = decoded(&said);
        assert_eq!((said.lease_id, said.status(), result.report), (7, v1::OutcomeStatus::Completed, None));
        let referred = result.report_artifact.unwrap();
        assert_eq!((referred.size_bytes, referred.sha256), (outcome.result.len() as u64, hex(&outcome.result_sha256)));
    }

    #[test]
    fn only_what_cannot_change_is_final() {
        let refused = |reason| Status::from(Refusal::new(reason, "no"));
        for status in [Status::unimplemented(""), refused(Reason::TooLarge), refused(Reason::LeaseNotCurrent)] {
            assert!(is_final(&status), "{status:?}");
        }
        for status in [
            Status::unavailable(""),
            Status::aborted(""),
            refused(Reason::Unavailable),
            refused(Reason::Internal),
            refused(Reason::InvalidArgument),
        ] {
            assert!(!is_final(&status), "{status:?}");
        }
    }
}
