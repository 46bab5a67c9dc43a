//! One request put to a picker, and what came of it.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    CommonResponse, ProcessingRequest, ProcessingResponse, body_mutation::Mutation, processing_response::Response,
};
use envoy_types::pb::google::protobuf::value::Kind;
use tonic::transport::Channel;

use super::client::{Hint, Mode, Talk, header_map, hinted, in_mode, request_body, request_headers, request_trailers};

pub(crate) const ENDPOINT: &str = "x-gateway-destination-endpoint";
/// Largest piece of a body that Envoy takes.
pub(crate) const PIECE_BYTES_MAX: usize = 62_000;
/// A model that nobody configured.
pub(crate) const MODEL: &str = "conformance-fake-model";

/// A picker, and what it chooses among.
#[derive(Debug)]
pub(crate) struct Picker {
    pub(crate) channel: Channel,
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Admin page of ours, `http://ip:port`; none of another picker's.
    pub(crate) admin: Option<String>,
}

/// A request as the client made it, and how the gateway shows it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a way of its own to show a request")]
pub(crate) struct Asked {
    pub(crate) mode: Mode,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(String, String)>,
    /// In the pieces in which the gateway shows it; none for a request without a body.
    pub(crate) body: Option<Vec<Vec<u8>>>,
    pub(crate) trailers: bool,
    pub(crate) hint: Hint,
    /// The hint comes with the body's last message instead of the headers.
    pub(crate) hint_on_body: bool,
    pub(crate) is_raw: bool,
    /// The gateway tells how it shows bodies.
    pub(crate) is_told: bool,
}

impl Asked {
    pub(crate) fn chat(mode: Mode) -> Self {
        Self { body: Some(vec![chat(20)]), ..Self::get(mode) }.method("POST", "/v1/chat/completions")
    }

    pub(crate) fn get(mode: Mode) -> Self {
        Self {
            mode,
            method: "GET",
            path: "/",
            headers: Vec::new(),
            body: None,
            trailers: false,
            hint: Hint::Absent,
            hint_on_body: false,
            is_raw: true,
            is_told: true,
        }
    }

    pub(crate) fn method(self, method: &'static str, path: &'static str) -> Self {
        Self { method, path, ..self }
    }

    pub(crate) fn body(self, pieces: Vec<Vec<u8>>) -> Self {
        Self { body: Some(pieces), ..self }
    }

    pub(crate) fn hint(self, hint: Hint) -> Self {
        Self { hint, ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn first(&self) -> ProcessingRequest {
        let content = [("content-type", "application/json")];
        let fixed = [(":method", self.method), (":path", self.path), (":authority", "pool"), (":scheme", "http")];
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs: Vec<_> =
            fixed.into_iter().chain(content.into_iter().filter(|_| self.body.is_some())).chain(own).collect();
        let mut first = request_headers(header_map(&pairs, self.is_raw), self.body.is_none());
        if !self.hint_on_body {
            first = hinted(first, &self.hint);
        }
        if self.is_told { in_mode(first, self.mode) } else { first }
    }

    /// What the gateway shows after the headers.
    fn rest(&self) -> Vec<ProcessingRequest> {
        let Some(pieces) = self.body.as_ref().filter(|_| self.mode != Mode::None) else { return Vec::new() };
        let last = pieces.len().saturating_sub(1);
        let shown = |(at, piece): (usize, &Vec<u8>)| {
            let sent = request_body(piece, at == last && !self.trailers);
            if at == last && self.hint_on_body { hinted(sent, &self.hint) } else { sent }
        };
        pieces.iter().enumerate().map(shown).chain(self.trailers.then(request_trailers)).collect()
    }
}

/// A chat body with a prompt of so many characters.
pub(crate) fn chat(prompt: usize) -> Vec<u8> {
    let text = "x".repeat(prompt);
    format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"{text}"}}]}}"#).into_bytes()
}

/// What the picker made of a request.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once for each case")]
pub(crate) enum Outcome {
    Picked(Picked),
    Refused {
        status: i32,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// Let on its way without a destination.
    Passed,
}

/// A destination, and the answers around it.
#[derive(Debug)]
pub(crate) struct Picked {
    /// The endpoints, best first.
    pub(crate) list: Vec<SocketAddr>,
    /// Header mutations, in order.
    pub(crate) set: Vec<(String, String)>,
    pub(crate) removed: Vec<String>,
    /// The body as it was sent back, in its pieces; duplex only.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// The stream, for the response.
    pub(crate) talk: Talk,
}

impl Outcome {
    pub(crate) fn picked(self) -> Result<Picked, String> {
        match self {
            Self::Picked(picked) => Ok(picked),
            Self::Refused { status, body, .. } => Err(format!("refused with {status}: {body}")),
            Self::Passed => Err("no destination".to_owned()),
        }
    }

    pub(crate) fn refused_with(self, expected: i32) -> Result<(Vec<(String, String)>, String), String> {
        match self {
            Self::Refused { status, headers, body } if status == expected => Ok((headers, body)),
            Self::Refused { status, body, .. } => Err(format!("{status} instead of {expected}: {body}")),
            Self::Picked(picked) => Err(format!("sent to {:?} instead of {expected}", picked.list)),
            Self::Passed => Err(format!("let pass instead of {expected}")),
        }
    }
}

pub(crate) fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(fault()) }
}

/// Puts a request to the picker, message by message, and checks each answer against the rules of the mode.
pub(crate) async fn pick(picker: &Picker, asked: &Asked) -> Result<Outcome, String> {
    let mut talk = Talk::open(&picker.channel, asked.first()).await?;
    let mut answers = Answers::default();
    if asked.mode == Mode::Duplex {
        // As a gateway does: it reads while it writes.
        let writing = talk.write_all(asked.rest());
        let reading = async {
            while !answers.ends_request(asked) {
                if let Some(refused) = answers.take(talk.answer().await?, asked.mode)? {
                    return Ok::<_, String>(Some(refused));
                }
            }
            Ok(None)
        };
        let refused = tokio::select! {
            refused = reading => refused?,
            () = writing => unreachable!("it never ends"),
        };
        if let Some(refused) = refused {
            return ended(talk, refused).await;
        }
    } else {
        if let Some(refused) = answers.take(talk.answer().await?, asked.mode)? {
            return ended(talk, refused).await;
        }
        for message in asked.rest() {
            if let Some(refused) = answers.take(talk.ask(message).await?, asked.mode)? {
                return ended(talk, refused).await;
            }
        }
    }
    answers.outcome(talk)
}

/// After an immediate answer the stream is over, and well.
async fn ended(mut talk: Talk, refused: Outcome) -> Result<Outcome, String> {
    match talk.hear().await? {
        None => Ok(refused),
        Some(more) => Err(format!("an answer after the immediate one: {more:?}")),
    }
}

/// The answers to a request's messages so far.
#[derive(Debug, Default)]
struct Answers {
    headers: usize,
    set: Vec<(String, String)>,
    removed: Vec<String>,
    metadata: Option<String>,
    pieces: Vec<Vec<u8>>,
    is_last_flagged: bool,
    trailers: usize,
}

impl Answers {
    fn ends_request(&self, asked: &Asked) -> bool {
        match &asked.body {
            None => self.headers > 0,
            Some(_) if asked.trailers => self.trailers > 0,
            Some(_) => self.is_last_flagged,
        }
    }

    fn take(&mut self, answer: ProcessingResponse, mode: Mode) -> Result<Option<Outcome>, String> {
        if let Some(told) = &answer.dynamic_metadata {
            let inner = told.fields.get("envoy.lb").and_then(|value| value.kind.as_ref());
            if let Some(Kind::StructValue(inner)) = inner
                && let Some(Kind::StringValue(text)) = inner.fields.get(ENDPOINT).and_then(|value| value.kind.as_ref())
            {
                self.metadata = Some(text.clone());
            }
        }
        match answer.response.ok_or("an answer that answers nothing")? {
            Response::RequestHeaders(headers) => {
                self.headers += 1;
                self.common(headers.response.unwrap_or_default(), mode, false)?;
            }
            Response::RequestBody(body) => {
                ensure(self.headers == 1, || "the body was answered before the headers".to_owned())?;
                self.common(body.response.unwrap_or_default(), mode, true)?;
            }
            Response::RequestTrailers(_) => self.trailers += 1,
            Response::ImmediateResponse(reply) => {
                let status = reply.status.map_or(0, |status| status.code);
                let options = reply.headers.unwrap_or_default().set_headers;
                let headers = options.into_iter().filter_map(|option| option.header);
                let headers = headers.map(|header| (header.key, String::from_utf8_lossy(&header.raw_value).into()));
                let body = String::from_utf8_lossy(&reply.body).into_owned();
                return Ok(Some(Outcome::Refused { status, headers: headers.collect(), body }));
            }
            other => return Err(format!("an answer to a response in the request phase: {other:?}")),
        }
        Ok(None)
    }

    fn common(&mut self, common: CommonResponse, mode: Mode, is_body: bool) -> Result<(), String> {
        let mutation = common.header_mutation.clone().unwrap_or_default();
        let sets =
            |name: &String| mutation.set_headers.iter().any(|set| set.header.as_ref().is_some_and(|h| h.key == *name));
        ensure(!mutation.remove_headers.iter().any(sets), || format!("set and removed at once: {mutation:?}"))?;
        for option in common.header_mutation.iter().flat_map(|mutation| &mutation.set_headers) {
            let header = option.header.clone().unwrap_or_default();
            let both = !header.value.is_empty() && !header.raw_value.is_empty();
            ensure(!both, || format!("`value` and `raw_value` are both set: {header:?}"))?;
            ensure(header.key != "transfer-encoding", || "transfer-encoding is set".to_owned())?;
            ensure(
                option.append_action != i32::from(HeaderAppendAction::AppendIfExistsOrAdd) || header.value.is_empty(),
                || format!("appended, not overwritten: {header:?}"),
            )?;
            let text = if header.raw_value.is_empty() {
                header.value.clone()
            } else {
                String::from_utf8_lossy(&header.raw_value).into()
            };
            self.set.push((header.key, text));
        }
        self.removed.extend(common.header_mutation.iter().flat_map(|mutation| mutation.remove_headers.clone()));
        let mutation = common.body_mutation.and_then(|body| body.mutation);
        match (mode, is_body, mutation) {
            (Mode::Duplex, true, Some(Mutation::StreamedResponse(piece))) => {
                ensure(!self.is_last_flagged, || "a piece after the last".to_owned())?;
                ensure(piece.body.len() <= PIECE_BYTES_MAX, || format!("a piece of {} bytes", piece.body.len()))?;
                self.is_last_flagged = piece.end_of_stream;
                self.pieces.push(piece.body);
                Ok(())
            }
            (Mode::Duplex, true, other) => Err(format!("a duplex body is answered with {other:?}")),
            (_, _, Some(Mutation::StreamedResponse(_))) => Err(format!("a streamed piece in mode {mode:?}")),
            _ => Ok(()),
        }
    }

    fn outcome(self, talk: Talk) -> Result<Outcome, String> {
        ensure(self.headers == 1, || format!("the headers were answered {} times", self.headers))?;
        let headers: Vec<_> = self.set.iter().filter(|(name, _)| name == ENDPOINT).map(|(_, value)| value).collect();
        let Some(list) = headers.last() else { return Ok(Outcome::Passed) };
        ensure(headers.len() == 1, || format!("several destinations: {headers:?}"))?;
        ensure(self.metadata.as_ref() == Some(*list), || {
            format!("header and metadata differ: {list:?}, {:?}", self.metadata)
        })?;
        let list = list
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("not addresses: {list:?}"))?;
        Ok(Outcome::Picked(Picked { list, set: self.set, removed: self.removed, pieces: self.pieces, talk }))
    }
}
