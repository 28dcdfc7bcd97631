//! Whether all of a request has come. Where everybody is seen off, nobody waits for the rest of one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Whether all of a request has come.
#[derive(Debug, Clone)]
pub(super) struct Whole(Arc<AtomicBool>);

impl Whole {
    /// The request, with a body that tells when its end has been read.
    pub(super) fn watch(request: Request<Incoming>) -> (Request<Watched>, Self) {
        let whole = Self(Arc::new(AtomicBool::new(request.body().is_end_stream())));
        let told = whole.clone();
        (request.map(|body| Watched { body, whole: told }), whole)
    }

    /// Whether its end has been read.
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body of a request.
#[derive(Debug)]
pub(super) struct Watched {
    body: Incoming,
    whole: Whole,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.whole.0.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
