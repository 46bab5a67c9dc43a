//! Everything that can be wrong with a request body.

use thiserror::Error;

/// Why a request body is refused. The text is for the client: it names the field or the place, and
/// never repeats what the client sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// Nothing, or only white space.
    #[error("the body is empty")]
    Empty,
    /// Not text at all, or cut inside a character.
    #[error("the body is not valid UTF-8 at byte {byte}")]
    InvalidUtf8 {
        /// Offset of the first byte that is not UTF-8, from 0.
        byte: usize,
    },
    /// The JSON is fine so far, but it stops.
    #[error("the body ends before its JSON does, at line {line} column {column}")]
    Truncated {
        /// Line of the end, from 1.
        line: usize,
        /// Column of the end in bytes, from 1.
        column: usize,
    },
    /// Not JSON, or something after the JSON.
    #[error("the body is not valid JSON: {reason} at line {line} column {column}")]
    Syntax {
        /// What was found or expected.
        reason: String,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// JSON, but an array, a string or the like.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// A field that we read has another type than its API gives it.
    #[error("`{field}` must be {expected} (line {line} column {column})")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What its API asks for.
        expected: &'static str,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// A field that we read is there twice: we and the engine might read different ones.
    #[error("duplicate field `{field}`")]
    Duplicate {
        /// The field.
        field: &'static str,
    },
    /// A field that steers an engine, which is for a router to set and not for a client.
    #[error("field `{0}` is not accepted from clients")]
    SteeringField(&'static str),
    /// The body names no model, and its API needs one. [`super::head::read`] leaves that decision
    /// to its caller ([`super::Head::require_model`]).
    #[error("`model` is required")]
    MissingModel,
    /// The content type does not fit the API.
    #[error("the content type must be {expected}")]
    ContentType {
        /// What it must be.
        expected: &'static str,
    },
    /// Not well-formed `multipart/form-data`.
    #[error("the multipart body is malformed: {reason} at byte {byte}")]
    Multipart {
        /// What is wrong.
        reason: &'static str,
        /// Offset from 0.
        byte: usize,
    },
    /// The form is fine so far, but it stops before its last boundary.
    #[error("the body ends before its multipart form does, at byte {byte}")]
    CutForm {
        /// Offset of the end.
        byte: usize,
    },
    /// A form field that we read is longer than anything it could mean.
    #[error("form field `{field}` is longer than {limit_bytes} bytes")]
    FieldTooLong {
        /// The field.
        field: &'static str,
        /// The limit.
        limit_bytes: usize,
    },
}

impl BodyError {
    /// HTTP status: 413 for what is too long, 400 for all else.
    pub fn status(&self) -> u16 {
        match self {
            Self::FieldTooLong { .. } => 413,
            _ => 400,
        }
    }

    /// `OpenAI`'s `error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::NotAnObject => "invalid_body",
            Self::InvalidUtf8 { .. } => "invalid_utf8",
            Self::Truncated { .. } | Self::Syntax { .. } => "invalid_json",
            Self::WrongType { .. } => "invalid_type",
            Self::Duplicate { .. } => "duplicate_field",
            Self::SteeringField(_) => "unsupported_field",
            Self::MissingModel => "missing_required_parameter",
            Self::ContentType { .. } => "invalid_content_type",
            Self::Multipart { .. } | Self::CutForm { .. } => "invalid_multipart",
            Self::FieldTooLong { .. } => "field_too_long",
        }
    }

    /// `OpenAI`'s `error.param`: the field at fault, if there is one.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::WrongType { field, .. }
            | Self::Duplicate { field }
            | Self::SteeringField(field)
            | Self::FieldTooLong { field, .. } => Some(field),
            Self::MissingModel => Some("model"),
            _ => None,
        }
    }
}
