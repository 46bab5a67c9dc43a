//! Results as plots: for each workload one SVG with four of them, over the demand.

use std::fmt::Write as _;

use super::super::sweep::Cell;
use super::table::number;

/// One plot: what it shows of a run, in which scale.
struct Plot {
    title: &'static str,
    value: fn(&Cell) -> f64,
    logarithmic: bool,
}

const PLOTS: [Plot; 4] = [
    Plot { title: "TTFT p90, ms", value: |cell| cell.summary.ttft_ms.p90, logarithmic: true },
    Plot { title: "output tokens/s", value: |cell| cell.summary.output_tokens_per_s, logarithmic: false },
    Plot { title: "prefix hit rate", value: |cell| cell.summary.hit_rate, logarithmic: false },
    Plot { title: "load spread", value: |cell| cell.summary.spread, logarithmic: false },
];

/// Colours that are told apart, also by most of those who confuse red and green (Okabe and Ito).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000"];
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 56.0;
const LEGEND_LINE: f64 = 16.0;

/// The file name and the text of each plot.
pub fn plots(cells: &[Cell]) -> Vec<(String, String)> {
    let mut workloads: Vec<&str> = Vec::new();
    for cell in cells {
        if !workloads.contains(&cell.workload.as_str()) {
            workloads.push(&cell.workload);
        }
    }
    let file = |name: &str| {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        format!("{}.svg", name.chars().map(plain).collect::<String>())
    };
    let of = |name: &str| cells.iter().filter(|cell| cell.workload == name).collect::<Vec<_>>();
    workloads.into_iter().map(|name| (file(name), sheet(name, &of(name)))).collect()
}

fn sheet(name: &str, cells: &[&Cell]) -> String {
    let mut strategies: Vec<&str> = Vec::new();
    for cell in cells {
        if !strategies.contains(&cell.strategy.as_str()) {
            strategies.push(&cell.strategy);
        }
    }
    let (width, legend) = (2.0 * WIDTH, LEGEND_LINE * strategies.len().div_ceil(3) as f64 + 16.0);
    let height = 2.0 * HEIGHT + legend + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"{}\" y=\"18\" \
         text-anchor=\"middle\" font-size=\"14\">{}</text>\n",
        WIDTH,
        escaped(name)
    );
    for (at, plot) in PLOTS.iter().enumerate() {
        let (left, top) = ((at % 2) as f64 * WIDTH, (at / 2) as f64 * HEIGHT + 24.0);
        writeln!(svg, "<g transform=\"translate({left} {top})\">").ok();
        draw(&mut svg, plot, cells, &strategies);
        svg.push_str("</g>\n");
    }
    for (at, strategy) in strategies.iter().enumerate() {
        let x = MARGIN + (at % 3) as f64 * (width - MARGIN) / 3.0;
        let y = 2.0 * HEIGHT + 40.0 + (at / 3) as f64 * LEGEND_LINE;
        let (colour, dash) = style(at);
        writeln!(
            svg,
            "<path d=\"M{x} {0}h20\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><text x=\"{1}\" y=\"{y}\">{2}</text>",
            y - 4.0,
            x + 26.0,
            escaped(strategy)
        )
        .ok();
    }
    svg.push_str("</svg>\n");
    svg
}

/// Colour and dashes of the strategy at a position: more strategies than colours differ by their dashes.
fn style(at: usize) -> (&'static str, &'static str) {
    let dash = match at / COLOURS.len() % 3 {
        0 => "",
        1 => " stroke-dasharray=\"6 3\"",
        _ => " stroke-dasharray=\"2 2\"",
    };
    (COLOURS.get(at % COLOURS.len()).copied().unwrap_or("#000000"), dash)
}

/// A scale: the values at both ends, and whether steps are factors.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone, from_zero: bool, logarithmic: bool) -> Self {
        let low = values.clone().filter(|v| !logarithmic || *v > 0.0).fold(f64::INFINITY, f64::min);
        let high = values.fold(0.0, f64::max);
        let low = if from_zero && !logarithmic { 0.0 } else { low.min(high) };
        let high = if high > low { high } else { low + 1.0 };
        Self { low: if logarithmic { low.max(1e-3) } else { low }, high, logarithmic }
    }

    /// The place of a value, 0 to 1.
    fn at(self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// Five values from end to end.
    fn ticks(self) -> impl Iterator<Item = f64> {
        (0..5).map(move |step| {
            let share = f64::from(step) / 4.0;
            if self.logarithmic {
                self.low * (self.high / self.low).powf(share)
            } else {
                self.low + (self.high - self.low) * share
            }
        })
    }
}

fn draw(svg: &mut String, plot: &Plot, cells: &[&Cell], strategies: &[&str]) {
    let xs = Scale::of(cells.iter().map(|cell| cell.x), false, false);
    let ys = Scale::of(cells.iter().map(|cell| (plot.value)(cell)), true, plot.logarithmic);
    let (right, bottom) = (WIDTH - 16.0, HEIGHT - 40.0);
    let x = |value: f64| MARGIN + xs.at(value) * (right - MARGIN);
    let y = |value: f64| bottom - ys.at(value) * (bottom - 24.0);
    // Writing into a string cannot fail.
    writeln!(svg, "<text x=\"{MARGIN}\" y=\"16\" font-size=\"12\">{}</text>", plot.title).ok();
    for tick in ys.ticks() {
        let at = y(tick);
        writeln!(svg, "<path d=\"M{MARGIN} {at:.1}H{right}\" stroke=\"#ddd\"/>").ok();
        let (left, text) = (MARGIN - 6.0, number(tick));
        writeln!(svg, "<text x=\"{left}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", at + 4.0).ok();
    }
    for tick in xs.ticks() {
        let (at, text) = (x(tick), number(tick));
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", bottom + 16.0).ok();
    }
    for (position, strategy) in strategies.iter().enumerate() {
        let (colour, dash) = style(position);
        let own = cells.iter().filter(|cell| cell.strategy == **strategy);
        let points: Vec<_> = own.map(|cell| (x(cell.x), y((plot.value)(cell)))).collect();
        let line: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let line = line.join(" ");
        writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>")
            .ok();
        for (x, y) in points {
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>").ok();
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
