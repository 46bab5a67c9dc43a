//! Cases of the request side: modes, bodies, headers, subsets, refusals.

use std::net::SocketAddr;

use super::client::{Hint, MODES, Mode, Talk, header_map, in_mode, request_body, request_headers, response_headers};
use super::run::{Asked, ENDPOINT, Picker, chat, ensure, pick};

type Done = Result<(), String>;

pub(crate) async fn every_mode_sends_a_chat_to_one_endpoint(picker: &Picker) -> Done {
    for mode in MODES {
        let asked = if mode == Mode::None { Asked::chat(mode).method("POST", "/") } else { Asked::chat(mode) };
        let choice = pick(picker, &asked).await?.picked().map_err(|fault| format!("{mode:?}: {fault}"))?;
        ensure(choice.list.len() == 1, || format!("{mode:?}: a list of {}", choice.list.len()))?;
        ensure(picker.endpoints.contains(&choice.list[0]), || format!("{mode:?}: not of the pool: {:?}", choice.list))?;
        let is_changed = choice.set.iter().any(|(name, _)| name == "content-length");
        ensure(mode != Mode::Buffered || !is_changed, || "content-length is set though nothing changed".to_owned())?;
    }
    Ok(())
}

pub(crate) async fn a_get_without_body_is_sent_in_every_mode(picker: &Picker) -> Done {
    for mode in MODES {
        let choice = pick(picker, &Asked::get(mode)).await?.picked().map_err(|fault| format!("{mode:?}: {fault}"))?;
        ensure(choice.pieces.is_empty(), || format!("{mode:?}: a body came of none"))?;
    }
    pick(picker, &Asked::get(Mode::Duplex).method("GET", "/v1/models")).await?.picked().map(drop)
}

pub(crate) async fn duplex_bodies_come_back_byte_for_byte(picker: &Picker) -> Done {
    let random = fastrand::Rng::with_seed(7);
    for size in [0, 1, 61_999, 62_000, 62_001, 124_000, 1 << 20, 5 << 20] {
        let body: Vec<u8> = (0..=250u8).cycle().take(size).collect();
        for cuts in [0, 1, 20] {
            let pieces = split(&body, cuts, &mut random.clone());
            let asked = Asked::chat(Mode::Duplex).method("POST", "/any").body(pieces);
            let choice = pick(picker, &asked).await?.picked().map_err(|fault| format!("{size} bytes: {fault}"))?;
            ensure(choice.pieces.concat() == body, || format!("{size} bytes in {cuts} cuts came back changed"))?;
        }
    }
    Ok(())
}

pub(crate) async fn chat_bodies_of_every_split_come_back(picker: &Picker) -> Done {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..30 {
        let body = chat(random.usize(..200_000));
        let pieces = split(&body, random.usize(..30), &mut random);
        let choice = pick(picker, &Asked::chat(Mode::Duplex).body(pieces)).await?.picked()?;
        ensure(choice.pieces.concat() == body, || format!("{} bytes came back changed", body.len()))?;
    }
    Ok(())
}

/// Cuts a body at random places; pieces may be empty.
fn split(body: &[u8], cuts: usize, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut places: Vec<_> = (0..cuts).map(|_| random.usize(..=body.len())).collect();
    places.extend([0, body.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| body[ends[0]..ends[1]].to_vec()).collect()
}

pub(crate) async fn trailers_end_a_duplex_body(picker: &Picker) -> Done {
    let body = chat(100_000);
    let asked = Asked { trailers: true, ..Asked::chat(Mode::Duplex).body(vec![body.clone()]) };
    let choice = pick(picker, &asked).await?.picked()?;
    ensure(choice.pieces.concat() == body, || "the body came back changed".to_owned())
}

pub(crate) async fn a_second_end_of_the_body_is_ignored(picker: &Picker) -> Done {
    let mut choice = pick(picker, &Asked::chat(Mode::Duplex)).await?.picked()?;
    choice.talk.say(request_body(b"", true)).await?;
    let answer = choice.talk.ask(response_headers(&[(":status", "200")], None, true)).await?;
    let text = format!("{answer:?}");
    ensure(text.contains("ResponseHeaders"), || format!("the second end was answered: {text}"))
}

pub(crate) async fn header_values_in_the_older_field_are_read(picker: &Picker) -> Done {
    pick(picker, &Asked { is_raw: false, ..Asked::chat(Mode::Duplex) }).await?.picked().map(drop)
}

pub(crate) async fn a_gateway_that_does_not_tell_its_modes_is_served(picker: &Picker) -> Done {
    pick(picker, &Asked { is_told: false, ..Asked::get(Mode::Buffered) }).await?.picked().map(drop)
}

pub(crate) async fn a_client_cannot_name_the_destination(picker: &Picker) -> Done {
    for mode in [Mode::Buffered, Mode::Duplex] {
        let asked = Asked::chat(mode).header(ENDPOINT, "192.0.2.1:80").header("x-prefiller-host-port", "192.0.2.1:80");
        let choice = pick(picker, &asked).await?.picked()?;
        ensure(picker.endpoints.contains(&choice.list[0]), || format!("{mode:?}: {:?} was believed", choice.list))?;
    }
    Ok(())
}

pub(crate) async fn control_headers_of_a_client_are_removed(picker: &Picker) -> Done {
    let asked = Asked::chat(Mode::Duplex).header("x-prefiller-host-port", "192.0.2.1:80");
    let choice = pick(picker, &asked).await?.picked()?;
    ensure(choice.removed.iter().any(|name| name == "x-prefiller-host-port"), || {
        format!("only {:?} is removed", choice.removed)
    })
}

pub(crate) async fn an_upgrade_is_answered_at_its_headers(picker: &Picker) -> Done {
    let pairs = [(":method", "GET"), (":path", "/v1/realtime"), ("connection", "upgrade"), ("upgrade", "websocket")];
    for mode in [Mode::Buffered, Mode::Duplex] {
        let first = in_mode(request_headers(header_map(&pairs, true), false), mode);
        let answer = Talk::open(&picker.channel, first).await?.answer().await?;
        let text = format!("{answer:?}");
        ensure(text.contains(ENDPOINT), || format!("{mode:?}: no destination: {text}"))?;
    }
    Ok(())
}

/// Shapes of a hint that all mean one endpoint.
fn shapes(address: SocketAddr) -> Vec<Hint> {
    let text = address.to_string();
    vec![
        Hint::List(vec![text.clone()]),
        Hint::Text(text.clone()),
        Hint::List(vec![format!("192.0.2.9:1,{text}")]),
        Hint::List(vec!["192.0.2.9:1".to_owned(), text.clone()]),
        Hint::Text(format!("192.0.2.9:1, {text}")),
    ]
}

async fn stays_inside(picker: &Picker, address: SocketAddr) -> Done {
    for hint in shapes(address) {
        for mode in [Mode::Buffered, Mode::Duplex] {
            for asked in [Asked::chat(mode), Asked::get(mode)] {
                let asked = asked.hint(hint.clone());
                let choice = pick(picker, &asked).await?.picked().map_err(|fault| format!("{hint:?}: {fault}"))?;
                ensure(choice.list == [address], || format!("{hint:?}: sent to {:?}", choice.list))?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn the_choice_stays_inside_the_subset(picker: &Picker) -> Done {
    for address in picker.endpoints.iter().filter(|address| address.is_ipv4()) {
        stays_inside(picker, *address).await?;
    }
    Ok(())
}

pub(crate) async fn subsets_name_ipv6_too(picker: &Picker) -> Done {
    for address in picker.endpoints.iter().filter(|address| address.is_ipv6()) {
        stays_inside(picker, *address).await?;
    }
    Ok(())
}

pub(crate) async fn a_subset_without_ports_means_every_port(picker: &Picker) -> Done {
    let ip = picker.endpoints[0].ip();
    for _ in 0..10 {
        let asked = Asked::chat(Mode::Duplex).hint(Hint::List(vec![ip.to_string()]));
        let choice = pick(picker, &asked).await?.picked()?;
        ensure(choice.list[0].ip() == ip, || format!("sent to {:?}", choice.list))?;
    }
    Ok(())
}

pub(crate) async fn a_subset_may_come_with_the_body(picker: &Picker) -> Done {
    let address = picker.endpoints[0];
    for mode in [Mode::Buffered, Mode::Duplex] {
        let asked = Asked { hint_on_body: true, ..Asked::chat(mode).hint(Hint::Text(address.to_string())) };
        let choice = pick(picker, &asked).await?.picked()?;
        ensure(choice.list == [address], || format!("{mode:?}: sent to {:?}", choice.list))?;
    }
    Ok(())
}

pub(crate) async fn a_subset_of_strangers_or_of_nobody_is_a_503(picker: &Picker) -> Done {
    let foreign = || vec!["192.0.2.9:8000".to_owned(), "[2001:db8::9]:8000".to_owned()];
    let other_port = SocketAddr::new(picker.endpoints[0].ip(), 1).to_string();
    for hint in [Hint::List(foreign()), Hint::Text(foreign().join(",")), Hint::List(vec![]), Hint::Text(other_port)] {
        for asked in [Asked::chat(Mode::Buffered), Asked::chat(Mode::Duplex), Asked::get(Mode::Duplex)] {
            let asked = asked.hint(hint.clone());
            pick(picker, &asked).await?.refused_with(503).map_err(|fault| format!("{hint:?}: {fault}"))?;
        }
    }
    Ok(())
}

pub(crate) async fn faulty_bodies_are_a_400(picker: &Picker) -> Done {
    for body in ["{", "[]", r#"{"messages":[]}"#] {
        for mode in [Mode::Buffered, Mode::Duplex] {
            let asked = Asked::chat(mode).body(vec![body.as_bytes().to_vec()]);
            let (headers, text) =
                pick(picker, &asked).await?.refused_with(400).map_err(|fault| format!("{body}: {fault}"))?;
            ensure(picker.admin.is_none() || text.starts_with(r#"{"error":"#), || format!("{body}: {text}"))?;
            let is_json = headers.contains(&("content-type".to_owned(), "application/json".to_owned()));
            ensure(picker.admin.is_none() || is_json, || format!("{body}: {headers:?}"))?;
        }
    }
    Ok(())
}

pub(crate) async fn a_body_above_the_limit_is_a_413(picker: &Picker) -> Done {
    for mode in [Mode::Buffered, Mode::Duplex] {
        let asked = Asked::chat(mode).body(vec![chat(9 << 20), vec![b' '; 9 << 20]]);
        let asked = if mode == Mode::Buffered { asked.body(vec![chat(18 << 20)]) } else { asked };
        pick(picker, &asked).await?.refused_with(413)?;
    }
    Ok(())
}

pub(crate) async fn without_endpoints_everything_is_a_503(picker: &Picker) -> Done {
    for mode in MODES {
        let paths = [Asked::get(mode), Asked::get(mode).method("GET", "/healthz"), Asked::chat(mode)];
        for asked in paths {
            let (headers, _) =
                pick(picker, &asked).await?.refused_with(503).map_err(|fault| format!("{mode:?}: {fault}"))?;
            let named = headers
                .iter()
                .any(|(name, value)| name == "x-llm-d-request-dropped-reason" && value == "rejected-no-endpoints");
            ensure(named && headers.iter().any(|(name, _)| name == "retry-after"), || format!("{headers:?}"))?;
        }
    }
    Ok(())
}
