#!/usr/bin/env python3
"""Measures an OpenAI-compatible endpoint, for `fairlead simulate` to be held against.

  tools/replay.py samples --url http://127.0.0.1:8001 --model M > samples.jsonl    what `simulate calibrate` reads
  tools/replay.py make --rate 8 --requests 400 > trace.jsonl                       a trace, as `simulate --trace` reads it
  tools/replay.py run --url http://127.0.0.1:10000 --model M trace.jsonl           sends it, and prints what came of it

Prompts are made of words of four letters, one block of 16 words for each id of `hash_ids`. Standard library only.
"""
import argparse, asyncio, json, random, sys, time
from urllib.parse import urlsplit

BLOCK = 16


def block(number, words=BLOCK):
    letters = random.Random(number)
    return " ".join("".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(words))


def prompt(line, own):
    ids = line.get("hash_ids", [])
    rest = line["input_length"] - BLOCK * len(ids)
    return " ".join([block(number) for number in ids] + ([block(-own, rest)] if rest > 0 else []))


async def ask(url, model, text, answer_tokens):
    """One streamed completion: seconds to the first token and to the last, and the engine's own counts."""
    place = urlsplit(url)
    body = json.dumps({"model": model, "prompt": text, "max_tokens": answer_tokens, "ignore_eos": True,
                       "stream": True, "stream_options": {"include_usage": True}}).encode()
    began, first, last, usage = time.perf_counter(), None, None, {}
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = (f"POST /v1/completions HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n")
        writer.write(head.encode() + body)
        status = (await reader.readline()).split()[1]
        if status != b"200":
            raise RuntimeError(f"status {status.decode()}")
        while (await reader.readline()).strip():
            pass
        events = b""
        while size := int(await reader.readline(), 16):
            events += await reader.readexactly(size)
            await reader.readline()
            *whole, events = events.split(b"\n\n")
            for event in whole:
                data = event.removeprefix(b"data: ")
                if not data.startswith(b"{"):
                    continue
                parsed = json.loads(data)
                usage = parsed.get("usage") or usage
                if parsed.get("choices") and parsed["choices"][0].get("text"):
                    last = time.perf_counter()
                    first = first or last
    finally:
        writer.close()
    details = usage.get("prompt_tokens_details") or {}
    return {"prompt_tokens": usage["prompt_tokens"], "cached_tokens": details.get("cached_tokens") or 0,
            "output_tokens": usage["completion_tokens"], "ttft_ms": (first - began) * 1e3,
            "itl_ms": (last - first) * 1e3 / max(usage["completion_tokens"] - 1, 1)}


async def samples(args):
    """Prompts of several lengths, alone and several at once."""
    own = random.randrange(1 << 40)
    for _ in range(3):
        for length in (64, 250, 1000, 2000, 4000, 8000):
            for together in (1, 4, 16):
                asked = []
                for _ in range(together):
                    own += 1
                    asked.append(ask(args.url, args.model, block(own, length), 50))
                for sample in await asyncio.gather(*asked):
                    print(json.dumps({**sample, "concurrency": together}), flush=True)


def make(args):
    """Poisson arrivals; prompts of some groups share their beginnings."""
    rng, at, fresh = random.Random(args.seed), 0.0, 1 << 20
    for _ in range(args.requests):
        at += rng.expovariate(args.rate) * 1e3
        group = rng.randrange(args.groups)
        shared = [1 + group * 1000 + block for block in range(args.shared // BLOCK)]
        length = args.shared + min(int(rng.lognormvariate(5.7, 0.8)) + 8, 4000)
        fresh += 1000
        own = [fresh + block for block in range((length - args.shared) // BLOCK)]
        print(json.dumps({"timestamp": round(at, 3), "input_length": length, "output_length": rng.randint(20, 120),
                          "hash_ids": shared + own}))


async def run(args):
    """Sends each request at its time, whatever became of those before."""
    lines = [json.loads(line) for line in open(args.trace)]
    began, results, failed = time.perf_counter(), [], 0

    async def one(at, line):
        nonlocal failed
        text = prompt(line, at + 1)
        await asyncio.sleep(max(0.0, line["timestamp"] / 1e3 + args.lead - (time.perf_counter() - began)))
        try:
            results.append(await ask(args.url, args.model, text, line["output_length"]))
        except Exception as error:
            failed += 1
            print(f"request {at}: {error}", file=sys.stderr)

    await asyncio.gather(*(one(at, line) for at, line in enumerate(lines)))
    counted = results[int(len(results) * args.warm_up):]

    def quantiles(key):
        values = sorted(result[key] for result in counted)
        return " ".join(f"{values[int(share * (len(values) - 1))]:9.1f}" for share in (0.5, 0.9, 0.99))

    hits = sum(r["cached_tokens"] for r in counted) / sum(r["prompt_tokens"] for r in counted)
    print(f"{len(results)} answered, {failed} failed; hits {hits:.1%}")
    print(f"         {'p50':>9} {'p90':>9} {'p99':>9}\nTTFT ms  {quantiles('ttft_ms')}\nITL ms   {quantiles('itl_ms')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, work in (("samples", samples), ("make", make), ("run", run)):
        command = commands.add_parser(name, help=work.__doc__)
        command.set_defaults(work=work)
        if name != "make":
            command.add_argument("--url", required=True)
            command.add_argument("--model", required=True)
        if name == "make":
            command.add_argument("--rate", type=float, default=8.0, help="requests a second")
            command.add_argument("--requests", type=int, default=400)
            command.add_argument("--groups", type=int, default=20, help="different shared beginnings")
            command.add_argument("--shared", type=int, default=1024, help="tokens of each of them")
            command.add_argument("--seed", type=int, default=1)
        if name == "run":
            command.add_argument("trace")
            command.add_argument("--warm-up", type=float, default=0.2, help="share of requests that is not counted")
            command.add_argument("--lead", type=float, default=2.0, help="seconds before the first, to make prompts in")
    args = parser.parse_args()
    asyncio.run(args.work(args)) if asyncio.iscoroutinefunction(args.work) else args.work(args)


main()
