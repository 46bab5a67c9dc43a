//! Which API a method and a path name, for every path that the known engines serve.

use std::borrow::Cow;

/// What a request line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// An inference request: its body names the model.
    Inference(Api),
    /// The list of models.
    ListModels,
    /// One model's card; the id is percent-decoded and may contain `/`.
    GetModel(String),
    /// Not ours to route.
    Unknown,
}

/// An inference API. The engines' aliases of one API are the same variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`, and llama-server's `/completion`
    Completions,
    /// llama-server's `/infill`
    Infill,
    /// `/v1/responses`
    Responses,
    /// `/v1/embeddings`, Cohere's `/v2/embed`, `SGLang`'s `/encode`
    Embeddings,
    /// `/rerank`, `/v1/rerank`, `/v2/rerank`, `/reranking`
    Rerank,
    /// `/score`
    Score,
    /// `/classify`
    Classify,
    /// `/pooling`
    Pooling,
    /// Anthropic's `/v1/messages`
    Messages,
    /// `/v1/messages/count_tokens` and its relatives
    CountTokens,
    /// `/v1/images/generations`
    ImagesGenerations,
    /// `/v1/images/edits`
    ImagesEdits,
    /// `/v1/images/variations`
    ImagesVariations,
    /// `/v1/video/generations`
    VideoGenerations,
    /// `/v1/audio/transcriptions`
    AudioTranscriptions,
    /// `/v1/audio/translations`
    AudioTranslations,
    /// `/v1/audio/speech`
    AudioSpeech,
    /// `/tokenize`
    Tokenize,
    /// `/detokenize`
    Detokenize,
    /// A prompt rendered but not answered: vLLM's `…/render`, llama-server's `/apply-template`
    Render,
    /// `SGLang`'s `/generate` (its body names no model) and vLLM's `/inference/v1/generate`
    Generate,
}

/// How a request body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// A JSON object.
    Json,
    /// `multipart/form-data`.
    Multipart,
}

impl Api {
    /// How the body of this API is written.
    pub fn body_kind(self) -> BodyKind {
        match self {
            Self::ImagesEdits | Self::ImagesVariations | Self::AudioTranscriptions | Self::AudioTranslations => {
                BodyKind::Multipart
            }
            _ => BodyKind::Json,
        }
    }

    /// A stable name, for metric labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Infill => "infill",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::Classify => "classify",
            Self::Pooling => "pooling",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::ImagesGenerations => "images_generations",
            Self::ImagesEdits => "images_edits",
            Self::ImagesVariations => "images_variations",
            Self::VideoGenerations => "video_generations",
            Self::AudioTranscriptions => "audio_transcriptions",
            Self::AudioTranslations => "audio_translations",
            Self::AudioSpeech => "audio_speech",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
            Self::Render => "render",
            Self::Generate => "generate",
        }
    }

    /// Whether a request may ask for its answer as server-sent events.
    pub fn streams(self) -> bool {
        matches!(
            self,
            Self::Chat
                | Self::Completions
                | Self::Infill
                | Self::Responses
                | Self::Messages
                | Self::Generate
                | Self::ImagesGenerations
                | Self::ImagesEdits
                | Self::AudioTranscriptions
                | Self::AudioTranslations
        )
    }
}

/// Tells what `method` and `path` ask for. The path may carry a query string and trailing slashes.
///
/// The `/v1` prefix is optional wherever some engine leaves it out; where an engine insists on it,
/// that engine's own 404 is the better answer.
pub fn classify(method: &str, path: &str) -> Route {
    // Engines decode the path before they look at it, so another spelling must not be another path.
    let path = decode(without_query(path), Plus::IsPlus);
    let path = path.trim_end_matches('/');
    let short = match path.strip_prefix("/v1") {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    match method {
        "POST" => api(path, short).map_or(Route::Unknown, Route::Inference),
        "GET" | "HEAD" => model_page(short),
        _ => Route::Unknown,
    }
}

/// The decoded value of a query parameter of `path`, as in `/v1/realtime?model=NAME`; the first
/// one if it is repeated.
pub fn query_param<'a>(path: &'a str, key: &str) -> Option<Cow<'a, str>> {
    let (_, query) = path.split_once('?')?;
    let query = query.split('#').next().unwrap_or(query);
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name, Plus::IsSpace) == key).then(|| decode(value, Plus::IsSpace))
    })
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

fn api(path: &str, short: &str) -> Option<Api> {
    // Paths without a version, or with another than /v1.
    let native = match path {
        "/v2/rerank" => Some(Api::Rerank),
        "/v2/embed" | "/embedding" | "/encode" => Some(Api::Embeddings),
        // vLLM's entrance for SageMaker: the body of any API, chat most of all.
        "/invocations" => Some(Api::Chat),
        "/completion" => Some(Api::Completions),
        "/infill" => Some(Api::Infill),
        "/generate" | "/inference/v1/generate" => Some(Api::Generate),
        "/_internal/tokenize" => Some(Api::Tokenize),
        "/apply-template" => Some(Api::Render),
        _ => None,
    };
    native.or_else(|| {
        Some(match short {
            "/chat/completions" | "/chat/completions/batch" => Api::Chat,
            "/completions" => Api::Completions,
            "/chat/completions/render" | "/completions/render" => Api::Render,
            "/responses" => Api::Responses,
            "/embeddings" => Api::Embeddings,
            "/rerank" | "/reranking" => Api::Rerank,
            "/score" => Api::Score,
            "/classify" => Api::Classify,
            "/pooling" => Api::Pooling,
            "/messages" => Api::Messages,
            "/messages/count_tokens" | "/chat/completions/input_tokens" | "/responses/input_tokens" => Api::CountTokens,
            "/images/generations" => Api::ImagesGenerations,
            "/images/edits" => Api::ImagesEdits,
            "/images/variations" => Api::ImagesVariations,
            "/video/generations" => Api::VideoGenerations,
            "/audio/transcriptions" => Api::AudioTranscriptions,
            "/audio/translations" => Api::AudioTranslations,
            "/audio/speech" => Api::AudioSpeech,
            "/tokenize" => Api::Tokenize,
            "/detokenize" => Api::Detokenize,
            _ => return None,
        })
    })
}

fn model_page(short: &str) -> Route {
    if short == "/models" {
        return Route::ListModels;
    }
    match short.strip_prefix("/models/") {
        Some(id) => Route::GetModel(id.to_owned()),
        None => Route::Unknown,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsPlus,
    IsSpace,
}

/// Percent-decodes; what is not a valid escape stays as written, bytes that are not UTF-8 become
/// U+FFFD and so match no model.
fn decode(text: &str, plus: Plus) -> Cow<'_, str> {
    let is_plain = |byte: &u8| *byte != b'%' && (*byte != b'+' || plus == Plus::IsPlus);
    if text.as_bytes().iter().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = tail;
                }
                _ => decoded.push(b'%'),
            },
            (b'+', _) if plus == Plus::IsSpace => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_path_is_classified() {
        for (path, api) in [
            ("/v1/chat/completions", Api::Chat),
            ("/chat/completions", Api::Chat),
            ("/v1/chat/completions/", Api::Chat),
            ("/v1/chat/completions?api-version=1", Api::Chat),
            ("/v1/completions", Api::Completions),
            ("/completion", Api::Completions),
            ("/v1/responses", Api::Responses),
            ("/v1/messages", Api::Messages),
            ("/v1/messages/count_tokens", Api::CountTokens),
            ("/v1/embeddings", Api::Embeddings),
            ("/v2/embed", Api::Embeddings),
            ("/pooling", Api::Pooling),
            ("/classify", Api::Classify),
            ("/v1/classify", Api::Classify),
            ("/score", Api::Score),
            ("/v2/rerank", Api::Rerank),
            ("/v1/rerank", Api::Rerank),
            ("/reranking", Api::Rerank),
            ("/v1/audio/transcriptions", Api::AudioTranscriptions),
            ("/v1/images/edits", Api::ImagesEdits),
            ("/generate", Api::Generate),
            ("/tokenize", Api::Tokenize),
            ("/v1/detokenize", Api::Detokenize),
        ] {
            assert_eq!(classify("POST", path), Route::Inference(api), "{path}");
        }
    }

    #[test]
    fn only_post_is_inference_and_only_get_or_head_a_model_page() {
        assert_eq!(classify("GET", "/v1/chat/completions"), Route::Unknown);
        assert_eq!(classify("POST", "/v1/models"), Route::Unknown);
        assert_eq!(classify("DELETE", "/v1/models/x"), Route::Unknown);
        assert_eq!(classify("GET", "/v1/models/?limit=3"), Route::ListModels);
        assert_eq!(classify("HEAD", "/models"), Route::ListModels);
    }

    #[test]
    fn near_misses_are_unknown() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1x/completions",
            "/v1/v1/completions",
            "/V1/completions",
            "//v1/completions",
            "/v1/responses/resp_1/cancel",
            "/v3/rerank",
            "/v1/generate",
            "/healthz",
        ] {
            assert_eq!(classify("POST", path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn model_ids_are_decoded_and_may_contain_slashes() {
        let model = |id: &str| Route::GetModel(id.to_owned());
        assert_eq!(classify("GET", "/v1/models/org/name"), model("org/name"));
        assert_eq!(classify("GET", "/v1/models/org%2Fname%20b/"), model("org/name b"));
        assert_eq!(classify("GET", "/v1/models/a+b%zz%4"), model("a+b%zz%4"));
        assert_eq!(classify("GET", "/v1/models/%ff"), model("\u{fffd}"));
    }

    #[test]
    fn query_parameters_are_found_and_decoded() {
        let path = "/v1/realtime?intent=x&model=a%2Fb+c&model=d&flag#model=e";
        assert_eq!(query_param(path, "model").as_deref(), Some("a/b c"));
        assert_eq!(query_param(path, "flag").as_deref(), Some(""));
        assert_eq!(query_param(path, "mode"), None);
        assert_eq!(query_param("/v1/realtime", "model"), None);
    }
}
