//! Token ids from a model's files: `tokenizer.json`, and the chat template of `tokenizer_config.json` or
//! `chat_template.jinja`.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;
use tokio::time::timeout;

use crate::config::{TokenSource, Tokenizer as Config};

use super::hot::Question;
use super::status::Outcome;

/// The models whose files there are.
#[derive(Debug)]
pub(super) struct Local {
    by_name: HashMap<String, Arc<Model>>,
    /// Serves every model, where the folder is one model's own.
    only: Option<Arc<Model>>,
    timeout: Duration,
}

/// One model's tokenizer and template.
struct Model {
    tokenizer: tokenizers::Tokenizer,
    /// With one template, [`CHAT`], where the model has one.
    templates: Environment<'static>,
    /// Special tokens by the names that templates know them by.
    specials: HashMap<String, String>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("specials", &self.specials).finish_non_exhaustive()
    }
}

const CHAT: &str = "chat";

/// What is read of `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
struct Settings {
    #[serde(default)]
    chat_template: Option<Template>,
    #[serde(default)]
    bos_token: Option<Special>,
    #[serde(default)]
    eos_token: Option<Special>,
    #[serde(default)]
    pad_token: Option<Special>,
    #[serde(default)]
    unk_token: Option<Special>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Template {
    One(String),
    Several(Vec<Named>),
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token { content: String },
}

impl Local {
    /// Reads the files that the configuration names; `None` if it names none.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(folder) = config.directory.as_deref().filter(|_| config.source == TokenSource::Directory) else {
            return Ok(None);
        };
        let mut local = Self { by_name: HashMap::new(), only: None, timeout: config.timeout };
        if folder.join("tokenizer.json").exists() {
            local.only = Some(Arc::new(Model::read(folder)?));
            return Ok(Some(local));
        }
        let failed = |error: io::Error| format!("cannot read \"{}\": {error}", folder.display());
        local.read_models(folder, folder).map_err(failed)??;
        if local.by_name.is_empty() {
            return Err(format!("no tokenizer.json in \"{}\" nor in a folder within it", folder.display()));
        }
        Ok(Some(local))
    }

    /// One folder for each model; a name may have a slash in it, and so a folder more.
    fn read_models(&mut self, root: &Path, folder: &Path) -> io::Result<Result<(), String>> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.join("tokenizer.json").exists() {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                match Model::read(&path) {
                    Ok(model) => drop(self.by_name.insert(name, Arc::new(model))),
                    Err(error) => return Ok(Err(error)),
                }
            } else if path.is_dir()
                && folder == root
                && let Err(error) = self.read_models(root, &path)?
            {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn tokens(&self, question: &Question) -> Result<Arc<[u32]>, Outcome> {
        let model = self.by_name.get(&*question.model).or(self.only.as_ref()).ok_or(Outcome::Nobody)?;
        let (model, is_chat, body) = (Arc::clone(model), question.is_chat, Bytes::clone(&question.body));
        // A long prompt takes tens of milliseconds, which nobody else should wait for.
        let made = tokio::task::spawn_blocking(move || model.tokens(is_chat, &body));
        let made = timeout(self.timeout, made).await.map_err(|_| Outcome::Late)?;
        made.map_err(|_| Outcome::Failed)?.map(Into::into).map_err(|error| {
            tracing::debug!(error, "no token ids");
            Outcome::Failed
        })
    }
}

impl Model {
    fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("tokenizer.json");
        let failed = |error: &dyn std::fmt::Display| format!("cannot read \"{}\": {error}", path.display());
        let tokenizer = tokenizers::Tokenizer::from_file(&path).map_err(|error| failed(&error))?;
        let settings: Settings = match std::fs::read(folder.join("tokenizer_config.json")) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| format!("tokenizer_config.json: {error}"))?,
            Err(_) => Settings::default(),
        };
        let own = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
        let template = own.or(match settings.chat_template {
            Some(Template::One(text)) => Some(text),
            Some(Template::Several(all)) => all.into_iter().find(|one| one.name == "default").map(|one| one.template),
            None => None,
        });
        let mut templates = environment();
        if let Some(template) = template {
            templates
                .add_template_owned(CHAT, template)
                .map_err(|error| format!("the chat template of \"{}\": {error}", folder.display()))?;
        }
        let specials = [
            ("bos_token", settings.bos_token),
            ("eos_token", settings.eos_token),
            ("pad_token", settings.pad_token),
            ("unk_token", settings.unk_token),
        ];
        let specials = specials.into_iter().filter_map(|(name, special)| {
            let text = match special? {
                Special::Text(text) | Special::Token { content: text } => text,
            };
            Some((name.to_owned(), text))
        });
        Ok(Self { tokenizer, templates, specials: specials.collect() })
    }

    /// The token ids of a request's body, as the engine makes them: chats by the template, which writes special tokens
    /// itself; other prompts with those that the tokenizer adds.
    fn tokens(&self, is_chat: bool, body: &[u8]) -> Result<Vec<u32>, String> {
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let member = |name: &str| body.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none());
        let adds_specials = member("add_special_tokens").map_or(!is_chat, |value| value.is_true());
        let text = if is_chat {
            self.render(&member).map_err(|error| format!("{error:#}"))?
        } else {
            let prompt = member("prompt").ok_or("no prompt")?;
            prompt.as_str().ok_or("more than one prompt")?.to_owned()
        };
        let encoded = self.tokenizer.encode(text, adds_specials).map_err(|error| error.to_string())?;
        Ok(encoded.get_ids().to_vec())
    }

    fn render(&self, member: &impl Fn(&str) -> Option<Value>) -> Result<String, Error> {
        let mut context: HashMap<String, Value> = HashMap::new();
        context.extend(self.specials.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))));
        for name in ["messages", "tools", "documents"] {
            context.extend(member(name).map(|value| (name.to_owned(), value)));
        }
        let adds_prompt = member("add_generation_prompt").is_none_or(|value| value.is_true());
        context.insert("add_generation_prompt".to_owned(), adds_prompt.into());
        if let Some(more) = member("chat_template_kwargs") {
            for key in more.try_iter()? {
                context.insert(key.to_string(), more.get_item(&key)?);
            }
        }
        let messages = context.get("messages").cloned().unwrap_or_default();
        context.insert("messages".to_owned(), plain(&messages)?);
        self.templates.get_template(CHAT)?.render(Value::from_pairs(context))
    }
}

/// Messages whose text parts are put together, as engines do for templates that know only texts.
fn plain(messages: &Value) -> Result<Value, Error> {
    let mut all = Vec::new();
    for message in messages.try_iter()? {
        let content = message.get_attr("content")?;
        if content.kind() != minijinja::value::ValueKind::Seq {
            all.push(message);
            continue;
        }
        let mut texts = Vec::new();
        for part in content.try_iter()? {
            texts.extend(part.get_attr("text")?.as_str().map(str::to_owned));
        }
        let members = message.try_iter()?.map(|key| {
            let value =
                if key.as_str() == Some("content") { Ok(texts.join("\n").into()) } else { message.get_item(&key) };
            value.map(|value| (key, value))
        });
        all.push(Value::from_pairs(members.collect::<Result<Vec<_>, _>>()?));
    }
    Ok(all.into())
}

/// The dialect that models' templates are written in.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // Never fails: the delimiters are the usual ones.
    if let Ok(syntax) = environment.syntax().to_builder().trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    environment.add_filter("tojson", tojson);
    environment
}

/// JSON as Python writes it: spaces behind commas and colons, nothing escaped for HTML.
#[expect(clippy::needless_pass_by_value, reason = "the shape of a filter")]
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = b" ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&indent);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Spaced)),
    };
    let failed = |error: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, error.to_string());
    written.map_err(|error| failed(&error))?;
    String::from_utf8(text).map(Value::from_safe_string).map_err(|error| failed(&error))
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
