//! The reference page of the configuration, made from the table of settings.

use std::fmt::Write;

use serde_json::Value;

use super::{Config, Effect, FileDiscovery, Form, KubernetesDiscovery, SETTINGS, Setting};

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `fairlead docs configuration`; a test compares. Change the doc comments in `src/config` instead. -->

Fairlead reads one YAML file (`--config FILE` or `FAIRLEAD_CONFIG`), the environment and its flags.
Precedence: flag, environment, file, default. `fairlead check` takes the same sources and prints what comes out
and where each value was given, or all faults with their lines.

The flag and the environment variable of a key follow from it: `listen.ext_proc` is `--listen-ext-proc` and
`FAIRLEAD_LISTEN_EXT_PROC`. `routing.algorithm` also answers to `ROUTING_ALGORITHM`. An environment variable that is
empty counts as not set. Unknown keys are faults. A section may be left out or empty. Named strategies
(`routing.strategies`) and config profiles (`routing.models`) are maps and have no flags; [strategies.md](strategies.md)
describes them.

The file is read again when it changes, and on SIGHUP ([operations.md](operations.md#changing-the-configuration)).
Settings marked *restart* keep their value until the process starts again; all others take effect at once, as do
`discovery.static`, `routing.strategies`, `routing.models` and `scrape.generic.metrics`.

Durations are numbers with units: `500ms`, `2s`, `1m 30s`. Addresses are `ip:port`, IPv6 in brackets. Paths are relative
to the working directory. `check` and `/api/config` show all values: a secret stands in a file of its own, and the
value is its path.

The smallest useful file:

```yaml
listen: { ext_proc: 127.0.0.1:50052, admin: 127.0.0.1:8080 }
routing: { algorithm: least-request }
discovery:
  static:
    - { address: 127.0.0.1:8001, models: [llama-3-8b] }
    - { address: 127.0.0.1:8002, models: [llama-3-8b] }
```
";

const ENDPOINTS: &str = "
### `discovery.static`: endpoints

A list; the file at `discovery.file.path` is the same list. It has no flag.

| key | default | meaning |
|---|---|---|
| `address` | required | Where requests go: `ip:port`. One endpoint for each address. |
| `name` | the address | Name for people. |
| `models` | any model | Models served: names, or `{ name: …, adapters: […] }`. |
| `engine` | `auto` | `auto` recognises it by its metrics; else `vllm`, `sglang`, `trtllm`, `triton`, `llamacpp`, `tgi`, `xllm`, `generic` (see `scrape.generic.metrics`), or `none` for an engine whose metrics we do not read. |
| `role` | `both` | `both`, `prefill` or `decode`. |
| `weight` | `1` | Relative capacity, 1 to 1,000. |
| `cost` | `1.0` | Relative cost, at least 0. |
| `tier` | none | Tier name. |
| `region` | none | Region name. |
| `pools` | none | Names of pools that it is in; a route can keep its requests to one ([discovery.md](discovery.md#pools)). |
| `labels` | none | Free labels. |
| `profiles` | none | Config profiles of its models, as the JSON of AIBrix's annotation `model.aibrix.ai/config` ([aibrix.md](aibrix.md#model-configuration)). |
| `metrics_address` | `address` | Where metrics are read. |
";

const GENERIC: &str = "
### `scrape.generic.metrics`: an engine with metrics of its own

A mapping from what is told to where; it has no flag. `signals.md` lists the names on the left.

```yaml
scrape:
  generic:
    path: /metrics
    metrics:
      running: { names: [my_running] }
      waiting: { names: [my_queue, my_old_queue] }           # the first name that a page has
      kv_usage: { names: [my_cache_percent], fold: mean, scale: 0.01 }
      ttft: { names: [my_first_token_ms], scale: 0.001 }     # a histogram, without _bucket
      generation_tokens: { names: [my_tokens_total], only: { kind: output } }
```

| key | default | meaning |
|---|---|---|
| `names` | required | Names of the metric, the preferred one first; of a histogram without suffix. |
| `fold` | `sum` | How several series become one: `sum`, `mean`, `max` or `min`. |
| `scale` | `1.0` | What a value is multiplied by to be in our unit. |
| `only` | none | Labels; a series that has one of them with another value does not count. |
";

/// The whole page, in Markdown.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = "";
    for setting in SETTINGS {
        let own = setting.key.split_once('.').map_or("", |(section, _)| section);
        if own != section {
            section = own;
            page.extend([
                "\n## `",
                section,
                "`\n\n| key | value | default | change | meaning |\n|---|---|---|---|---|\n",
            ]);
        }
        row(&mut page, setting);
        if setting.key == "discovery.file.poll" {
            page.push_str(ENDPOINTS);
        }
        if setting.key == "scrape.generic.path" {
            page.push_str(GENERIC);
        }
    }
    page
}

fn row(page: &mut String, setting: &Setting) {
    let value = match setting.form {
        Form::Choice(words) => format!("`{}`", words.join("`, `")),
        form => form.placeholder().to_lowercase(),
    };
    let default = default_text(setting).map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
    let change = match setting.effect() {
        Effect::OnReload => "reload",
        Effect::OnRestart => "*restart*",
    };
    // Writing to a `String` cannot fail.
    writeln!(page, "| `{}` | {value} | {default} | {change} | {} |", setting.key, setting.help).ok();
}

/// The default of a setting as one would write it; `None` if it has none.
pub fn default_text(setting: &Setting) -> Option<String> {
    let mut config = Config::default();
    // These sections are absent by default, but some of their values have defaults once they are there.
    config.discovery.file = serde_json::from_value::<FileDiscovery>(serde_json::json!({ "path": "" })).ok();
    config.discovery.kubernetes = Some(KubernetesDiscovery::default());
    let tree = serde_json::to_value(&config).ok()?;
    let value = setting.key.split('.').try_fold(&tree, |value, part| value.get(part))?;
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_the_one_that_is_made() {
        let kept = include_str!("../../docs/configuration.md");
        assert!(kept == super::page(), "run `cargo run -- docs configuration > docs/configuration.md`");
    }
}
