//! Text in, token batches out, in host memory.
//!
//! Files of rows ([`formats`]) become conversations or plain texts, the chat template ([`chat`])
//! places control tokens and says what is learnt, the tokenizer gives ids, and a [`Sample`] holds
//! ids and labels. A [`Schedule`] says which samples belong to which optimizer step, and
//! [`Batch::collate`] joins them without padding.

mod batch;
mod cache;
pub mod chat;
mod conversation;
mod dataset;
mod decode_stream;
mod error;
mod fingerprint;
pub mod formats;
pub mod hygiene;
mod jinja;
mod llama3_tokenizer;
mod mixture;
mod overlong;
mod packing;
mod preview;
mod python_text;
pub mod quickstart;
mod random;
mod sample;
mod samples;
mod schedule;
mod shown;
mod split;
mod statistics;
mod template_json;
#[cfg(test)]
mod test_tokenizer;
mod tiktoken;
mod tokenizer;
mod train_on;
mod visible;
mod written;

pub use batch::Batch;
pub use cache::Cache;
pub use chat::{ChatTemplate, Preamble};
pub use conversation::{Content, Conversation, Message, Role};
pub use dataset::{Dataset, encode_rows};
pub use decode_stream::DecodeStream;
pub use error::{Error, FileProblem, RowPlace, RowProblem};
pub use fingerprint::RowDigest;
pub use formats::{
    Columns, FileContent, FileDigest, FileReader, FileRows, Format, MOST_BYTES_OF_A_ROW, Measure,
    NOTES, Origin, ReadRows, Row, RowReader, SourceFile, read_rows,
};
pub use jinja::{Losses, ModelTemplate, NamedFile, TemplateFiles};
pub use mixture::{Part, Portion, Take, is_plain, mixture};
pub use overlong::{Overlong, OverlongReport, OverlongRow};
pub use packing::{Length, pack};
pub use preview::{Preview, PreviewParts, PreviewStyle, Stretch};
pub use random::{CounterRng, Purpose};
pub use sample::{IGNORE, Sample, SampleOptions};
pub use samples::{RowRecord, Rows, SampleList, Samples};
pub use schedule::{Packing, Schedule, ScheduleOptions};
pub use split::{Split, split_validation};
pub use statistics::{FileStatistics, Histogram, Lengths, RowCounts, Statistics};
pub use tokenizer::{Tokenizer, TokenizerFiles};
pub use train_on::{TrainOn, Turns};
pub use visible::{Visible, is_visible, visible};
