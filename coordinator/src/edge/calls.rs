//! Calls: how many of one address, how soon a message that has begun must be whole, and how much may wait at either end.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use guestkit_protocol::status::{Reason, Refusal};
use http_body::{Body as _, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tower::Layer;

use super::connections::{Account, Peer};
use crate::metrics::Metrics;

/// Messages up to here arrive as they come; larger ones need a share of what may arrive at once.
const SMALL_BYTES_MAX: usize = 16 * 1024;

/// Answers are handed over in pieces of so many bytes, as their receiver takes them.
const PIECE_BYTES: usize = 32 * 1024;

/// Bytes of answers that one address may have asked for and not taken.
const UNTAKEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds calls: a layer around every service.
#[derive(Debug, Clone)]
pub struct Calls {
    /// Of one address, at once.
    pub per_peer_max: usize,
    /// For a message that has begun to arrive, and for a call's first.
    pub patience: Duration,
    /// Counts what is refused.
    pub metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Calls {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, calls: self.clone() }
    }
}

/// A service whose calls are bounded.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    calls: Calls,
}

type Answered = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Metered<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answered {
        let Some(peer) = request.extensions().get::<Peer>() else {
            // From within this process: nobody to account it to.
            return Box::pin(self.inner.call(request));
        };
        let metrics = Arc::clone(&self.calls.metrics);
        let Some(seat) = Seat::take(&peer.account, self.calls.per_peer_max) else {
            let text = format!("{} calls of this address are under way already", self.calls.per_peer_max);
            return Box::pin(async move { Ok(refused(&metrics, text)) });
        };
        let arriving = Arriving {
            inner: Body::empty(),
            account: Arc::clone(&peer.account),
            patience: self.calls.patience,
            framing: Framing::default(),
            until: None,
            asking: None,
            share: None,
        };
        let request = request.map(|body| Body::new(Arriving { inner: body, ..arriving }));
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(leaving(answer.await?, seat, &metrics).await) })
    }
}

fn refused(metrics: &Metrics, text: String) -> http::Response<Body> {
    metrics.calls_refused.fetch_add(1, Ordering::Relaxed);
    Status::from(Refusal::new(Reason::RequestLimit, text).retry_after(RETRY_AFTER)).into_http()
}

/// A call's place among those of its address, until its answer was taken.
struct Seat(Arc<Account>);

impl Seat {
    fn take(account: &Arc<Account>, most: usize) -> Option<Self> {
        let seat = Self(Arc::clone(account));
        // Taken first and given back by the drop, so that two that come together cannot both have the last.
        (account.calls.fetch_add(1, Ordering::Relaxed) < most).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a body stands among its messages: each has five bytes before it, the last four of which say how long it is.
#[derive(Debug, Default)]
struct Framing {
    head: [u8; 4],
    head_bytes: usize,
    left: usize,
    /// Whether a message has been whole.
    any: bool,
}

impl Framing {
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                self.any |= self.left == 0;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            // The byte before the length says whether the message is compressed.
            if let Some(byte) = self.head_bytes.checked_sub(1).and_then(|place| self.head.get_mut(place)) {
                *byte = *first;
            }
            self.head_bytes += 1;
            bytes = rest;
            if self.head_bytes == 5 {
                self.head_bytes = 0;
                self.left = usize::try_from(u32::from_be_bytes(self.head)).unwrap_or(usize::MAX);
                self.any |= self.left == 0;
            }
        }
    }

    /// Whether nothing is owed: a message is whole, and none has begun after it.
    fn is_between(&self) -> bool {
        self.any && self.head_bytes == 0 && self.left == 0
    }
}

type Asking = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// A request's body on its way in.
struct Arriving {
    inner: Body,
    account: Arc<Account>,
    patience: Duration,
    framing: Framing,
    /// When the message that has begun must be whole; set when it has to be waited for.
    until: Option<Pin<Box<Sleep>>>,
    /// For a share.
    asking: Option<Asking>,
    share: Option<OwnedSemaphorePermit>,
}

impl Arriving {
    /// Waits for a share where one is needed to go on.
    fn poll_share(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.framing.is_between() {
            self.share = None;
        }
        if self.framing.left <= SMALL_BYTES_MAX || self.share.is_some() {
            return Poll::Ready(());
        }
        let (kib, arriving) = (Account::kib(self.framing.left), &self.account.arriving);
        let asking = self.asking.get_or_insert_with(|| {
            let arriving = Arc::clone(arriving);
            Box::pin(async move { arriving.acquire_many_owned(kib).await.ok() })
        });
        let Poll::Ready(share) = asking.as_mut().poll(cx) else { return Poll::Pending };
        self.asking = None;
        self.share = share;
        Poll::Ready(())
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.poll_share(cx).is_pending() {
            return Poll::Pending;
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else { return Poll::Pending };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.framing.take(data);
            if self.framing.is_between() {
                self.until = None;
            }
        }
        Poll::Ready(frame)
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = this.poll_more(cx) {
            return Poll::Ready(frame);
        }
        if this.framing.is_between() {
            return Poll::Pending;
        }
        let patience = this.patience;
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if until.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let text = format!("a message did not become whole within {} seconds", patience.as_secs_f64());
        Poll::Ready(Some(Err(Refusal::new(Reason::TooSlow, text).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// The answer, handed over as it is taken; a refusal where its address has too much that it did not take.
async fn leaving(answer: http::Response<Body>, seat: Seat, metrics: &Metrics) -> http::Response<Body> {
    let (parts, mut inner) = answer.into_parts();
    // An answer that is whole is here already; one that comes bit by bit is not waited for.
    let first = std::future::poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut inner).poll_frame(cx) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        })
    });
    let first = first.await;
    let large =
        matches!(&first, Some(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data.len() > PIECE_BYTES));
    if large && seat.0.untaken.load(Ordering::Relaxed) > UNTAKEN_BYTES_MAX {
        return refused(metrics, format!("{UNTAKEN_BYTES_MAX} bytes of answers wait to be taken by this address"));
    }
    let mut body = Leaving { inner, first: None, rest: Untaken { bytes: Bytes::new(), seat } };
    body.first = first.map(|frame| frame.map(|frame| frame.map(|frame| body.rest.cut(frame))));
    http::Response::from_parts(parts, Body::new(body))
}

/// An answer's body on its way out.
struct Leaving {
    inner: Body,
    /// Looked at before anybody asked for it.
    first: Option<Option<Result<Frame<Bytes>, Status>>>,
    rest: Untaken,
}

/// What is left of a piece, and whose account it stands on.
struct Untaken {
    bytes: Bytes,
    seat: Seat,
}

impl Untaken {
    fn counter(&self) -> &AtomicUsize {
        &self.seat.0.untaken
    }

    /// The frame, or its first piece where it is large; the rest is kept and counted.
    fn cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(mut data) if data.len() > PIECE_BYTES => {
                let piece = data.split_to(PIECE_BYTES);
                self.counter().fetch_add(data.len(), Ordering::Relaxed);
                self.bytes = data;
                Frame::data(piece)
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        }
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        let length = self.bytes.len().min(PIECE_BYTES);
        if length == 0 {
            return None;
        }
        self.counter().fetch_sub(length, Ordering::Relaxed);
        Some(Frame::data(self.bytes.split_to(length)))
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.counter().fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // The first piece was cut before what is left of it.
        if let Some(first) = this.first.take() {
            return Poll::Ready(first);
        }
        if let Some(piece) = this.rest.next() {
            return Poll::Ready(Some(Ok(piece)));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else { return Poll::Pending };
        Poll::Ready(frame.map(|frame| frame.map(|frame| this.rest.cut(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.bytes.is_empty() && self.inner.is_end_stream()
    }
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("framing", &self.framing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_wherever_they_are_cut() {
        let body: Vec<u8> = [&[0, 0, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 0, 0], &[1, 0, 0, 1, 0], &[7; 256]].concat();
        let whole = [8, 13, body.len()];
        for step in 1..=body.len() {
            let mut framing = Framing::default();
            assert!(!framing.is_between(), "the first message is owed");
            for (index, piece) in body.chunks(step).enumerate() {
                framing.take(piece);
                let position = (index * step + piece.len()).min(body.len());
                assert_eq!(framing.is_between(), whole.contains(&position), "{position} of {step} by {step}");
            }
        }
    }

    const PATIENCE: Duration = Duration::from_millis(200);

    /// A body that has these frames and then says nothing.
    struct Stuck(Vec<&'static [u8]>);

    impl http_body::Body for Stuck {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data))))),
                None => Poll::Pending,
            }
        }
    }

    async fn next(body: &mut Arriving) -> Result<Bytes, Status> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.unwrap()?;
        Ok(frame.into_data().unwrap())
    }

    #[tokio::test]
    async fn large_messages_arrive_as_far_as_their_address_has_room() {
        let account = Arc::new(Account::new());
        // Of 20 MiB each: there is room for one.
        let large = || Stuck(vec![b"more", &[0, 1, 0x40, 0, 0]]);
        let arriving = |inner: Stuck| Arriving {
            inner: Body::new(inner),
            account: Arc::clone(&account),
            patience: PATIENCE,
            framing: Framing::default(),
            until: None,
            asking: None,
            share: None,
        };
        let (mut first, mut second) = (arriving(large()), arriving(large()));
        next(&mut first).await.unwrap();
        next(&mut second).await.unwrap();
        assert_eq!(next(&mut first).await.unwrap(), "more");
        let wait = tokio::time::timeout(PATIENCE / 4, next(&mut second)).await;
        assert!(wait.is_err(), "it went on without a share");
        // Small ones are not held up.
        let mut small = arriving(Stuck(vec![b"more", &[0, 0, 0, 0, 9]]));
        next(&mut small).await.unwrap();
        assert_eq!(next(&mut small).await.unwrap(), "more");
        // Nothing more comes of the first; its end makes room.
        let status = next(&mut first).await.unwrap_err();
        assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::TooSlow);
        let mut third = arriving(large());
        next(&mut third).await.unwrap();
        drop((first, second));
        assert_eq!(next(&mut third).await.unwrap(), "more");
    }

    #[tokio::test]
    async fn what_is_whole_may_be_followed_by_nothing_for_ever() {
        let whole = Stuck(vec![&[0, 0, 0, 0, 1, 7]]);
        let mut body = Arriving {
            inner: Body::new(whole),
            account: Arc::new(Account::new()),
            patience: PATIENCE,
            framing: Framing::default(),
            until: None,
            asking: None,
            share: None,
        };
        next(&mut body).await.unwrap();
        let wait = tokio::time::timeout(PATIENCE * 3, next(&mut body)).await;
        assert!(wait.is_err(), "a stream that is idle was ended");
    }

    #[test]
    fn the_length_of_a_message_is_known_from_its_head() {
        let mut framing = Framing::default();
        framing.take(&[0, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(framing.left, 0xffff_fffe);
    }
}
