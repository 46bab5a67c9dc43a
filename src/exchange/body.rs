//! The request body as it comes in: pieces kept as they arrived, so that they can be sent back without a copy.

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
    /// Bytes taken from the budget; more than came so far if the length was announced.
    reserved: usize,
    max: usize,
    permit: BodyPermit,
}

impl Body {
    pub(super) fn new(max: usize, permit: BodyPermit) -> Self {
        Self { pieces: Vec::new(), length: 0, reserved: 0, max, permit }
    }

    /// Takes room for an announced length, so that it is refused before it comes.
    #[expect(clippy::result_large_err, reason = "made once, when a request is refused")]
    pub(super) fn reserve(&mut self, length: u64) -> Result<(), ApiError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.max {
            return Err(ApiError::too_large(self.max as u64));
        }
        let more = length.saturating_sub(self.reserved);
        if more > 0 && !self.permit.grow(more) {
            return Err(ApiError::overloaded(1));
        }
        self.reserved = self.reserved.max(length);
        Ok(())
    }

    /// Takes one more piece, or says why not.
    #[expect(clippy::result_large_err, reason = "made once, when a request is refused")]
    pub(super) fn push(&mut self, piece: Vec<u8>) -> Result<(), ApiError> {
        if piece.is_empty() {
            return Ok(());
        }
        let length = self.length.saturating_add(piece.len());
        self.reserve(length as u64)?;
        self.length = length;
        self.pieces.push(piece);
        Ok(())
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Takes back what [`Self::take`] gave.
    pub(super) fn put_back(&mut self, pieces: Vec<Vec<u8>>) {
        self.length = pieces.iter().map(Vec::len).sum();
        self.pieces = pieces;
    }

    /// The pieces, to be sent on. They stay in the budget until [`Self::release`].
    pub(super) fn take(&mut self) -> Vec<Vec<u8>> {
        self.length = 0;
        std::mem::take(&mut self.pieces)
    }

    /// Nothing of the body is held any longer.
    pub(super) fn release(&mut self) {
        if self.reserved > 0 {
            self.permit.release();
            self.reserved = 0;
        }
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
        assert_eq!(held.get(), 5);
        assert_eq!(body.take(), [b"abc".to_vec(), b"de".to_vec()]);
        assert_eq!(held.get(), 5);
        body.release();
        assert_eq!(held.get(), 0);
    }

    #[test]
    fn an_announced_length_is_taken_once() {
        let held = Gauge::default();
        let mut body = Body::new(10, BodyBudget::new(100, held.clone()).permit());
        body.reserve(4).unwrap();
        body.push(b"abcd".to_vec()).unwrap();
        assert_eq!(held.get(), 4);
        body.push(b"e".to_vec()).unwrap();
        assert_eq!(held.get(), 5);
        drop(body);
        assert_eq!(held.get(), 0);
    }

    #[test]
    fn too_large_and_out_of_budget_are_told_apart() {
        let budget = BodyBudget::new(8, Gauge::default());
        assert_eq!(Body::new(4, budget.permit()).push(vec![0; 5]).unwrap_err().status, 413);
        assert_eq!(Body::new(100, budget.permit()).push(vec![0; 9]).unwrap_err().status, 503);
    }
}
