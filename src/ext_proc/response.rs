//! The response direction: who served, what is learned of the answer, and the client's model name back into it.
//!
//! In duplex mode a body is sent back in pieces of our own cut; in the other modes each message is answered once, with
//! another body only where it changes. As for `content-length`, which has to go where the length may change: Envoy removes
//! it where it is configured to show bodies in pieces; where it was only asked to, we have to, or the answer becomes a
//! 500; where it holds a body back, the new length goes along.

use envoy_types::pb::envoy::service::ext_proc::v3::{CommonResponse, HttpBody, HttpHeaders, ProcessingRequest};

use super::machine::{Flow, Machine};
use super::modes::BodyMode;
use super::{reading, replies};

impl Machine {
    pub(super) fn response_headers(&mut self, message: &ProcessingRequest, headers: &HttpHeaders) {
        let report = reading::upstream_report(message, headers.headers.as_ref());
        let notes = self.exchange.response_head(report);
        let asks = self.settings.mode_override && !headers.end_of_stream && self.exchange.wants_response_body();
        let mode_override = asks.then(|| self.modes.show_response()).flatten();
        let loses_length = mode_override.is_some() && self.exchange.restores_model();
        let mut reply = replies::message(replies::response_headers(notes, loses_length));
        reply.mode_override = mode_override;
        self.out.push_back(reply);
        if headers.end_of_stream {
            self.exchange.response_end();
        }
        if self.observing {
            // Envoy leaves an observed stream open for seconds after the exchange.
            self.flow = Flow::Close;
        }
    }

    pub(super) fn response_body(&mut self, body: HttpBody) {
        // One message is all that is shown of such a body.
        let is_held = matches!(self.modes.response, BodyMode::Buffered | BodyMode::BufferedPartial);
        if is_held {
            self.exchange.response_held(&body.body);
        } else {
            self.exchange.response_piece(&body.body);
        }
        let restored = self.exchange.restore_model(&body.body, body.end_of_stream || is_held);
        if body.end_of_stream {
            self.exchange.response_end();
        }
        if self.modes.response == BodyMode::Duplex {
            self.send_answer(restored.unwrap_or(body.body), body.end_of_stream);
        } else {
            let has_length = self.modes.response == BodyMode::Buffered;
            let common = restored.map_or_else(CommonResponse::default, |body| replies::replaced(body, has_length));
            self.push(replies::response_body(common));
        }
    }

    pub(super) fn response_trailers(&mut self) {
        // In other modes no answer is left that could carry it: it is the beginning of a name that never ended.
        let held_back = self.exchange.take_held_back();
        if self.modes.response == BodyMode::Duplex && !held_back.is_empty() {
            self.send_answer(held_back, false);
        }
        self.exchange.response_end();
        self.push(replies::response_trailers());
    }

    fn send_answer(&mut self, body: Vec<u8>, is_last: bool) {
        let pieces = replies::pieces(vec![body]);
        let last = pieces.len().saturating_sub(1);
        for (at, piece) in pieces.into_iter().enumerate() {
            self.push(replies::response_body(replies::streamed(piece, is_last && at == last)));
        }
    }
}
