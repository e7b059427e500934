//! Logs and traces of every process, set up one way: lines on stderr, so that stdout stays a program's own, and spans to an
//! OpenTelemetry collector where one is configured. Decides nothing and holds no state besides what the libraries need.

use std::io::IsTerminal as _;
use std::str::FromStr;

use anyhow::Context as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The text names no log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be text or json")]
pub struct UnknownLogFormat;

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat),
        }
    }
}

/// What is set up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where spans go by OTLP over gRPC, such as `http://127.0.0.1:4317`; nowhere when absent.
    pub otlp_endpoint: Option<String>,
}

/// Sends what is left when it is dropped; hold it until the end of `main`.
#[derive(Debug)]
#[must_use = "dropping it ends the export of spans"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Sets up the process: levels as `RUST_LOG` says, `info` without it. Once per process.
///
/// With an `otlp_endpoint` it must be called on a multi-threaded tokio runtime, which does the sending.
///
/// # Errors
/// When `RUST_LOG` or the endpoint makes no sense, or the process was set up before.
pub fn init(service: &str, settings: &Settings) -> anyhow::Result<Guard> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .context("RUST_LOG is not a list of levels such as info,guestkit_worker=debug")?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let provider = settings.otlp_endpoint.as_deref().map(|endpoint| provider(service, endpoint)).transpose()?;
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service.to_owned())));
    tracing_subscriber::registry()
        .with(filter)
        .with(spans)
        .with(lines)
        .try_init()
        .context("logs are set up already")?;
    Ok(Guard { provider })
}

fn provider(service: &str, endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    tokio::runtime::Handle::try_current().context("spans are exported by the tokio runtime, and there is none here")?;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("{endpoint} is not the address of a collector such as http://127.0.0.1:4317"))?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Joins `span` to the caller's trace, named by W3C Trace Context ids in hex. Without a span id the low half of the trace id
/// stands in for the caller's span, so that the trace is joined all the same. Does nothing when spans are not exported or
/// the ids make no sense: a trace is no reason to fail a job.
pub fn join(span: &Span, trace_id: &str, span_id: &str) {
    if let Some(parent) = parent(trace_id, span_id) {
        // Fails only without an exporter, when there is no trace to join.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
}

fn parent(trace_id: &str, span_id: &str) -> Option<SpanContext> {
    let span_id = if span_id.is_empty() { trace_id.get(16..)? } else { span_id };
    let trace = TraceId::from_hex(trace_id).ok()?;
    let span = SpanId::from_hex(span_id).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_span_joins_the_callers_trace() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("attempt");
            join(&span, TRACE, "00f067aa0ba902b7");
            assert_eq!(span.context().span().span_context().trace_id().to_string(), TRACE);
        });
    }

    #[test]
    fn ids_without_sense_join_nothing() {
        for (trace, span) in [("", ""), ("x", "y"), (TRACE, "zz"), (&"0".repeat(32), ""), ("é", "")] {
            assert_eq!(parent(trace, span), None, "{trace} {span}");
        }
        let stand_in = parent(TRACE, "").map(|parent| parent.span_id().to_string());
        assert_eq!(stand_in.as_deref(), Some("a3ce929d0e0e4736"));
    }

    #[test]
    fn without_a_runtime_export_is_refused_not_a_panic() {
        assert!(provider("test", "http://127.0.0.1:4317").is_err());
    }
}
