//! `report.html`: one file that needs nothing else.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// What is drawn of one game.
#[derive(Debug)]
pub(super) struct Chart {
    /// What it is called.
    pub(super) title: String,
    /// What happened, in a sentence.
    pub(super) caption: String,
    /// Seconds and round trips in ms, of what went straight.
    pub(super) direct: Vec<(f64, f64)>,
    /// The same through the accelerator.
    pub(super) accelerated: Vec<(f64, f64)>,
    /// When a relay died, in the same seconds.
    pub(super) failure: Option<f64>,
}

/// The whole page: the summary as it was printed, and the charts.
pub(super) fn page(summary: &str, charts: &[Chart]) -> Result<String> {
    let mut html = String::from(HEAD);
    writeln!(html, "<pre>{}</pre>", escaped(summary))?;
    for chart in charts {
        writeln!(
            html,
            "<h2>{}</h2><p>{}</p>",
            escaped(&chart.title),
            escaped(&chart.caption)
        )?;
        html.push_str(&draw(chart)?);
    }
    html.push_str("</body></html>\n");
    Ok(html)
}

const HEAD: &str =
    "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Kuafu: report</title>
<style>body{font-family:sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}
pre{background:#f4f4f4;padding:1em;overflow-x:auto}svg{max-width:100%;height:auto}</style></head><body>
<h1>Kuafu: what the players gain</h1>
<p>Each dot is a round trip that a player measured with its own packets. Grey went straight over the Internet
of the emulated wire, blue through the accelerator; both ran at the same time.</p>
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A chart as SVG.
fn draw(chart: &Chart) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (960, 320)).into_drawing_area();
    plot(&area, chart).map_err(|error| anyhow!("cannot draw {}: {error}", chart.title))?;
    drop(area);
    Ok(svg)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn plot(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, chart: &Chart) -> Drawn {
    area.fill(&WHITE)?;
    let all = || chart.direct.iter().chain(&chart.accelerated);
    let end = all().map(|point| point.0).fold(1.0, f64::max);
    let top = all().map(|point| point.1).fold(1.0, f64::max) * 1.1;
    let mut canvas = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    canvas
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("round trip, ms")
        .light_line_style(WHITE)
        .draw()?;
    let dots = |points: &[(f64, f64)], color: RGBColor| {
        points
            .iter()
            .map(|&point| Circle::new(point, 1, color.filled()))
            .collect::<Vec<_>>()
    };
    canvas.draw_series(dots(&chart.direct, RGBColor(150, 150, 150)))?;
    canvas.draw_series(dots(&chart.accelerated, RGBColor(30, 90, 200)))?;
    if let Some(at) = chart.failure {
        canvas.draw_series(LineSeries::new([(at, 0.0), (at, top)], RED.stroke_width(1)))?;
    }
    area.present()?;
    Ok(())
}

/// Milliseconds, for people.
pub(super) fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let chart = Chart {
            title: "here → there".into(),
            caption: "a < b".into(),
            direct: vec![(0.0, 300.0), (1.0, 310.0)],
            accelerated: vec![(0.0, 250.0)],
            failure: Some(0.5),
        };
        let html = page("table", &[chart]).unwrap();
        assert!(html.contains("<svg") && html.contains("a &lt; b"));
        assert!(
            !html.contains("src=") && !html.contains("href="),
            "nothing is loaded"
        );
    }
}
