//! Media that is sent inline, told from text by a look here and there.

/// What media files and text there are in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PromptSize {
    /// Bytes that are not inline media, in JSON.
    pub text_bytes: usize,
    /// Inline media files.
    pub media: usize,
}

impl std::iter::Sum for PromptSize {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), |sum, size| Self {
            text_bytes: sum.text_bytes + size.text_bytes,
            media: sum.media + size.media,
        })
    }
}

/// One look for so many bytes; what is shorter than a few of these counts as text.
const STRIDE: usize = 1024;
/// Bytes looked at.
const LOOK: usize = 32;
/// A file of fewer looks than this is not told from an identifier that happens to be long.
const LOOKS_MIN: usize = 8;

/// Tells media from text: base64 goes on for kilobytes with nothing but its 64 letters, and hardly any language, code or
/// list of numbers does for 32 bytes. So it is enough to look now and then, and no key of any API has to be known.
pub(super) fn measure(json: &str) -> PromptSize {
    let mut size = PromptSize { text_bytes: json.len(), media: 0 };
    let mut run = 0;
    let bytes = json.as_bytes();
    for chunk in bytes.chunks(STRIDE) {
        let is_media = chunk.get(..LOOK).is_some_and(|look| look.iter().copied().all(is_base64));
        run = if is_media { run + 1 } else { 0 };
        if run == LOOKS_MIN {
            size.media += 1;
            size.text_bytes = size.text_bytes.saturating_sub(LOOKS_MIN * STRIDE);
        } else if run > LOOKS_MIN {
            size.text_bytes = size.text_bytes.saturating_sub(chunk.len());
        }
    }
    size
}

/// In either alphabet; `\/` is how some writers escape a slash.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: usize) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut rng = fastrand::Rng::with_seed(7);
        (0..bytes).map(|_| char::from(ALPHABET[rng.usize(..64)])).collect()
    }

    #[test]
    fn inline_media_of_any_api_is_not_text() {
        let text = r#"{"type":"text","text":"what is to be seen here?"}"#;
        let parts = [
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,MEDIA"}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"MEDIA","format":"wav"}}"#,
            r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"MEDIA"}}"#,
        ];
        for part in parts {
            let file = base64(1 << 20);
            let json = format!("[{{\"role\":\"user\",\"content\":[{text},{},{text}]}}]", part.replace("MEDIA", &file));
            let size = measure(&json);
            assert_eq!(size.media, 1, "{part}");
            assert!(size.text_bytes <= json.len() - file.len() + 2 * STRIDE, "{part}: {}", size.text_bytes);
            let two = measure(&format!("{json}{}{json}", " and ".repeat(1000)));
            assert_eq!(two.media, 2);
        }
    }

    #[test]
    fn text_code_numbers_and_short_files_are_text() {
        let samples = [
            "The quick brown fox jumps over the lazy dog. ".repeat(2000),
            "床前明月光，疑是地上霜。".repeat(2000),
            (0..40_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","),
            "    pub(super) fn measure(json: &str) -> PromptSize {\\n".repeat(2000),
            r#"{"role":"user","content":"hi"},"#.repeat(4000),
            base64(4096),
        ];
        for text in samples {
            assert_eq!(measure(&text), PromptSize { text_bytes: text.len(), media: 0 }, "{}", &text[..24]);
        }
    }
}
