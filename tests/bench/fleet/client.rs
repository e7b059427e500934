//! The client's side: jobs, submitted one by one or in bulk, and followed to their end.

use std::path::Path;

use guestkit_protocol::v1;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use v1::jobs_client::JobsClient;

use crate::Failure;

/// A connection of its own.
pub(crate) async fn connect(url: String) -> Result<Channel, Failure> {
    Ok(Channel::from_shared(url)?.tcp_nodelay(true).connect().await?)
}

/// The least that can be asked for.
pub(crate) fn echo(job_id: String) -> v1::JobDocument {
    document(job_id, "system.echo", [("message".to_owned(), prost_types::Value::from("hello"))])
}

/// An inspection as it is by default.
pub(crate) fn inspect(job_id: String, image: &Path) -> v1::JobDocument {
    let path = [("path".to_owned(), prost_types::Value::from(image.to_string_lossy().into_owned()))];
    let image = prost_types::Struct { fields: path.into_iter().collect() };
    let kind = prost_types::value::Kind::StructValue(image);
    document(job_id, "guestkit.inspect", [("image".to_owned(), prost_types::Value { kind: Some(kind) })])
}

fn document(job_id: String, operation: &str, data: [(String, prost_types::Value); 1]) -> v1::JobDocument {
    v1::JobDocument {
        version: "1.0".into(),
        job_id,
        kind: "VMOperation".into(),
        operation: operation.into(),
        payload: Some(v1::Payload {
            r#type: format!("{operation}.v1"),
            data: Some(prost_types::Struct { fields: data.into_iter().collect() }),
        }),
        ..Default::default()
    }
}

/// Waits for a job's end.
pub(crate) async fn outcome(client: &mut JobsClient<Channel>, job_id: String) -> Result<(), Failure> {
    let mut events = client.watch(v1::WatchRequest { job_id, after_sequence: 0 }).await?.into_inner();
    let mut last = v1::JobState::Unspecified;
    while let Some(answer) = events.next().await {
        last = answer?.event.map_or(last, |event| event.state());
    }
    if last == v1::JobState::Completed { Ok(()) } else { Err(format!("a job ended as {last:?}").into()) }
}

/// A stream of submissions: documents go in, and `accepted` hears of each acknowledgement, in order.
pub(crate) struct Bulk {
    documents: mpsc::Sender<v1::SubmitStreamRequest>,
    answers: tokio::task::JoinHandle<Result<(), Failure>>,
}

/// Documents on their way in one stream.
const UNDER_WAY: usize = 1024;

impl Bulk {
    pub(crate) async fn open(channel: Channel) -> Result<Self, Failure> {
        let (documents, taken) = mpsc::channel(UNDER_WAY);
        let mut client = JobsClient::new(channel);
        // The answer's headers come with the first answer, so the call is waited for beside the submissions.
        let answers = tokio::spawn(async move {
            let mut answers = client.submit_stream(ReceiverStream::new(taken)).await?.into_inner();
            while let Some(answer) = answers.next().await {
                if let Some(refused) = answer?.refused {
                    return Err(format!("a submission was refused: {}", refused.message).into());
                }
            }
            Ok(())
        });
        Ok(Self { documents, answers })
    }

    pub(crate) async fn submit(&self, document: v1::JobDocument) -> Result<(), Failure> {
        let request = v1::SubmitStreamRequest { document: Some(document) };
        Ok(self.documents.send(request).await.map_err(|_| "the stream of submissions broke")?)
    }

    /// Waits until everything is acknowledged.
    pub(crate) async fn finish(self) -> Result<(), Failure> {
        drop(self.documents);
        self.answers.await?
    }
}
