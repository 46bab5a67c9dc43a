//! What requests and replies mean: paths, request heads, usage and errors in the dialects that
//! inference engines speak.
//!
//! Pure functions over bytes: no I/O, no async, no Envoy types, no routing.
//!
//! | file | what it does |
//! |---|---|
//! | `paths` | method and path → which API, or which model page |
//! | `head` | request body → model, stream flag, limits, raw prompt (one pass, borrowed) |
//! | `fields` | which JSON keys `head` reads for which API, and the visitor that reads them |
//! | `seeds` | the typed values behind those keys |
//! | `canonical` | the prompt as bytes of one form, for hashing |
//! | `media` | files in the prompt, told from its text |
//! | `json_string` | strings in raw JSON: their end, their characters |
//! | `multipart` | the same head from `multipart/form-data`, without touching the file part |
//! | `body_error` | everything that can be wrong with a body |
//! | `error` | the errors we answer with: status, `OpenAI` body, `AIBrix` header, metric label |
//! | `models` | the `/v1/models` pages |
//! | `renamed` | another model's name in the reply, whatever its chunks |
//! | `usage` | token counts of a reply |
//! | `sse` | token counts and progress of a streamed reply, whatever its chunks |

mod body_error;
pub mod canonical;
#[cfg(test)]
mod canonical_tests;
pub mod error;
mod fields;
pub mod head;
#[cfg(test)]
mod head_tests;
mod json_string;
mod media;
pub mod models;
pub mod multipart;
pub mod paths;
pub mod renamed;
mod seeds;
pub mod sse;
pub mod usage;

pub use body_error::BodyError;
pub use error::ApiError;
pub use fields::STEERING_FIELDS;
pub use head::{CutHead, Head};
pub use paths::{Api, BodyKind, Route};
pub use renamed::Renamed;
pub use usage::Usage;
