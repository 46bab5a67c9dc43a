//! The request body as it comes in: pieces kept as they arrived, so that they can be sent back without a copy.

use std::borrow::Cow;

use crate::admission::BodyPermit;
use crate::openai::ApiError;

/// Whether all of a body was shown to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// All of it.
    Whole,
    /// Only its beginning.
    Cut,
}

/// Pieces of a body, under a cap of its own and under the budget of the process.
#[derive(Debug)]
pub(super) struct Body {
    pieces: Vec<Vec<u8>>,
    length: usize,
    max: usize,
    permit: BodyPermit,
}

impl Body {
    pub(super) fn new(max: usize, permit: BodyPermit) -> Self {
        Self { pieces: Vec::new(), length: 0, max, permit }
    }

    /// Takes one more piece, or says why not.
    #[expect(clippy::result_large_err, reason = "made once, when a request is refused")]
    pub(super) fn push(&mut self, piece: Vec<u8>) -> Result<(), ApiError> {
        if piece.is_empty() {
            return Ok(());
        }
        let length = self.length.saturating_add(piece.len());
        if length > self.max {
            return Err(ApiError::too_large(self.max as u64));
        }
        if !self.permit.grow(piece.len()) {
            return Err(ApiError::overloaded(1));
        }
        self.length = length;
        self.pieces.push(piece);
        Ok(())
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// All bytes in one piece; a copy only if they came in several.
    pub(super) fn joined(&self) -> Cow<'_, [u8]> {
        match self.pieces.as_slice() {
            [] => Cow::Borrowed(&[]),
            [only] => Cow::Borrowed(only),
            pieces => Cow::Owned(pieces.concat()),
        }
    }

    /// The pieces, to be sent on. The budget gets them back: they are on their way out.
    pub(super) fn take(&mut self) -> Vec<Vec<u8>> {
        self.permit.release();
        self.length = 0;
        std::mem::take(&mut self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use crate::admission::BodyBudget;

    use super::*;

    #[test]
    fn pieces_come_back_as_they_were_and_leave_the_budget() {
        let held = Gauge::default();
        let mut body = Body::new(10, BodyBudget::new(100, held.clone()).permit());
        for piece in [&b"abc"[..], b"", b"de"] {
            body.push(piece.to_vec()).unwrap();
        }
        assert_eq!(&*body.joined(), b"abcde");
        assert_eq!(held.get(), 5);
        assert_eq!(body.take(), [b"abc".to_vec(), b"de".to_vec()]);
        assert_eq!(held.get(), 0);
    }

    #[test]
    fn too_large_and_out_of_budget_are_told_apart() {
        let budget = BodyBudget::new(8, Gauge::default());
        assert_eq!(Body::new(4, budget.permit()).push(vec![0; 5]).unwrap_err().status, 413);
        assert_eq!(Body::new(100, budget.permit()).push(vec![0; 9]).unwrap_err().status, 503);
    }
}
