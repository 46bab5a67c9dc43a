//! Configuration texts with the run's own ports and paths in them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

/// Replaces `{name}` by its value wherever it occurs; braces around other names stay.
pub fn substitute(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// The quickstart's Envoy configuration on other ports and in another folder.
///
/// By convention that file listens on 127.0.0.1:10000, has its admin page on 9901, and uses `run/ext_proc.sock` and `run/eds`;
/// exactly these four are replaced, as whole words.
///
/// # Errors
/// One of the four is missing.
pub fn quickstart(text: &str, run: &Path, listener: SocketAddr, admin: SocketAddr) -> anyhow::Result<String> {
    let run = run.to_str().context("the run folder's path is not text")?;
    let values = [
        ("10000", listener.port().to_string()),
        ("9901", admin.port().to_string()),
        ("run/ext_proc.sock", format!("{run}/ext_proc.sock")),
        ("run/eds", format!("{run}/eds")),
    ];
    let mut text = text.to_owned();
    for (from, to) in values {
        let (replaced, count) = replace_word(&text, from, &to);
        ensure!(count > 0, "the Envoy configuration does not contain '{from}', which stands for '{to}' of this run");
        text = replaced;
    }
    Ok(text)
}

/// Replaces `from` where no letter, digit or path character stands before it and no letter or digit after it (`100000` is
/// not `10000`). Returns the number of places too.
fn replace_word(text: &str, from: &str, to: &str) -> (String, usize) {
    let mut out = String::with_capacity(text.len());
    let mut count = 0;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(from) {
        out.push_str(before);
        let word = |character: char| character.is_alphanumeric() || character == '_';
        let inside = out.ends_with(|character| word(character) || "/.".contains(character)) || after.starts_with(word);
        out.push_str(if inside { from } else { to });
        count += usize::from(!inside);
        rest = after;
    }
    out.push_str(rest);
    (out, count)
}

/// Envoy's binary: `given`, else the environment's `ENVOY`, else `.envoy/envoy` in this folder or one above it.
///
/// # Errors
/// There is none; the error says how to get it.
pub fn find_envoy(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let named = given
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("ENVOY").filter(|path| !path.is_empty()).map(PathBuf::from));
    if let Some(path) = named {
        ensure!(
            path.is_file(),
            "no Envoy at '{}'; 'make envoy' fetches the pinned one to .envoy/envoy",
            path.display()
        );
        return Ok(path);
    }
    let here = std::env::current_dir().context("current folder")?;
    for folder in here.ancestors() {
        let path = folder.join(".envoy/envoy");
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("Envoy is missing: run 'make envoy', or name a binary in the environment variable ENVOY");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
port_value: 10000 # also max: 100000
admin: { port_value: 9901 }
pipe: { path: run/ext_proc.sock }
path: \"run/eds/endpoints.yaml\"
watched_directory: { path: run/eds }
";

    fn render(text: &str) -> anyhow::Result<String> {
        quickstart(text, Path::new("/somewhere"), "127.0.0.1:1234".parse()?, "127.0.0.1:5678".parse()?)
    }

    #[test]
    fn the_four_conventional_strings_are_replaced_and_nothing_else() {
        let expected = "\
port_value: 1234 # also max: 100000
admin: { port_value: 5678 }
pipe: { path: /somewhere/ext_proc.sock }
path: \"/somewhere/eds/endpoints.yaml\"
watched_directory: { path: /somewhere/eds }
";
        assert_eq!(render(TEXT).unwrap(), expected);
    }

    #[test]
    fn a_missing_string_is_named() {
        for missing in ["10000", "9901", "run/ext_proc.sock", "run/eds"] {
            let error = render(&TEXT.replace(missing, "x")).unwrap_err().to_string();
            assert!(error.contains(&format!("'{missing}'")), "{error}");
        }
    }

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        let text = substitute("{ path: {run}/x, port: {port} } {other}", &[("run", "/r"), ("port", "1")]);
        assert_eq!(text, "{ path: /r/x, port: 1 } {other}");
    }

    #[test]
    fn a_missing_envoy_names_the_make_target() {
        let error = find_envoy(Some(Path::new("nowhere/envoy"))).unwrap_err().to_string();
        assert!(error.contains("make envoy"), "{error}");
    }
}
