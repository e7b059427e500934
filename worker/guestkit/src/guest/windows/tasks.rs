//! Scheduled tasks: the XML of Task Scheduler 2.0 (Windows Vista and later) and the `.job` files before it.
//! Sources: [MS-TSCH], section 2.5 (XML) and 2.4 (.JOB).

use crate::bytes::{le_u16, le_u32, slice};
use crate::error::Error;
use crate::filesystem::FileType;
use crate::guest::linux::files::{Files, lossy};
use crate::guest::registry::utf16_text;
use crate::guest::report::ScheduledTask;
use crate::guest::tree::WalkNext;
use crate::read_at::ReadAt as _;

use super::hives::Hives;

/// Bytes of one task: they have some kilobytes.
const TASK_BYTES_MAX: u64 = 1 << 20;
/// Tasks that are taken in: a machine has some hundreds.
const TASKS_MAX: usize = 10_000;
/// Bytes of a `.job` file before its texts, and its flag for a task that does not run.
const JOB_TEXTS: usize = 0x46;
const JOB_DISABLED: u32 = 0x4;

/// Every task, in order of path.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>, system_root: &str) -> Vec<ScheduledTask> {
    let folder = format!("{system_root}/System32/Tasks");
    let mut tasks = Vec::new();
    let walked = files.tree().walk(&folder, |entry| {
        if entry.file_type != FileType::Regular {
            return Ok(WalkNext::Descend);
        }
        if tasks.len() >= TASKS_MAX {
            files.warn(&*folder, format!("tasks past the first {TASKS_MAX} are left out"));
            return Ok(WalkNext::Stop);
        }
        let source = String::from_utf8_lossy(entry.path).into_owned();
        match entry.open().and_then(|file| file.map(|file| read(&file)).transpose()) {
            Ok(Some(bytes)) => {
                let path = source.get(folder.len()..).unwrap_or_default().replace('/', "\\");
                match task_of_xml(&text_of(bytes)) {
                    Some(task) => tasks.push(ScheduledTask { path, source, ..task }),
                    None => files.warn(source, "it is no task"),
                }
            }
            Ok(None) => {}
            Err(error @ Error::LimitReached { .. }) if error.is_budget_exhausted() => return Err(error),
            Err(error) => files.warn_error(&source, &error),
        }
        Ok(WalkNext::Descend)
    });
    match walked {
        Ok(unreadable) => {
            for folder in unreadable {
                files.warn_error(&String::from_utf8_lossy(&folder.path), &folder.error);
            }
        }
        Err(error) => files.warn_error(&folder, &error),
    }
    tasks.extend(jobs(files, system_root));
    if tasks.is_empty() {
        tasks = names_of_cache(hives);
    }
    tasks.sort_by(|one, other| one.path.cmp(&other.path));
    tasks
}

fn read(file: &crate::guest::tree::OpenFile) -> Result<Vec<u8>, Error> {
    if file.len() > TASK_BYTES_MAX {
        return Err(Error::LimitReached { which: crate::error::Limit::TextSize, value: TASK_BYTES_MAX });
    }
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn text_of(bytes: Vec<u8>) -> String {
    match bytes.strip_prefix(b"\xff\xfe") {
        Some(units) => utf16_text(units),
        None => lossy(bytes),
    }
}

/// The facts of a task's XML, whatever its namespace; `None` where it is none.
fn task_of_xml(text: &str) -> Option<ScheduledTask> {
    let mut task = ScheduledTask { enabled: Some(true), ..ScheduledTask::default() };
    let mut above: Vec<&str> = Vec::new();
    let mut is_task = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        let content = before.trim();
        if !content.is_empty() {
            take_in(&mut task, &above, unescape(content));
        }
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let (tag, next) = after.split_once('>')?;
        rest = next;
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if tag.starts_with('/') {
            above.pop();
            continue;
        }
        let name = tag.split([' ', '\t', '\r', '\n', '/']).next().unwrap_or_default();
        let name = name.rsplit(':').next().unwrap_or_default();
        is_task |= above.is_empty() && name == "Task";
        open(&mut task, &above, name);
        // No element of a task lies deeper than its schema's seven.
        if !tag.ends_with('/') {
            if above.len() > 64 {
                return None;
            }
            above.push(name);
        }
    }
    is_task.then_some(task)
}

/// An element begins.
fn open(task: &mut ScheduledTask, above: &[&str], name: &str) {
    match above {
        ["Task", "Triggers"] => {
            let kind = match name {
                "CalendarTrigger" => "calendar",
                "BootTrigger" => "boot",
                "LogonTrigger" => "logon",
                "TimeTrigger" => "time",
                "IdleTrigger" => "idle",
                "EventTrigger" => "event",
                "RegistrationTrigger" => "registration",
                "SessionStateChangeTrigger" => "session-state",
                _ => "other",
            };
            task.triggers.push(kind.to_owned());
        }
        ["Task", "Actions"] if name == "Exec" => task.commands.push(String::new()),
        _ => {}
    }
}

/// The text of an element.
fn take_in(task: &mut ScheduledTask, above: &[&str], text: String) {
    match above {
        ["Task", "RegistrationInfo", "Author"] => task.author = Some(text),
        ["Task", "RegistrationInfo", "Description"] => task.description = Some(text),
        ["Task", "Settings", "Enabled"] => task.enabled = Some(!matches!(text.as_str(), "false" | "0")),
        ["Task", "Principals", "Principal", "UserId" | "GroupId"] => task.run_as = Some(text),
        ["Task", "Principals", "Principal", "RunLevel"] => {
            task.run_level =
                Some(if text == "HighestAvailable" { "highest-available" } else { "least-privilege" }.to_owned());
        }
        ["Task", "Actions", "Exec", "Command"] => {
            if let Some(command) = task.commands.last_mut() {
                let arguments = std::mem::take(command);
                *command = format!("{text}{arguments}");
            }
        }
        ["Task", "Actions", "Exec", "Arguments"] => {
            if let Some(command) = task.commands.last_mut() {
                command.push(' ');
                command.push_str(&text);
            }
        }
        ["Task", "Actions", "ComHandler", "ClassId"] => task.commands.push(format!("com:{text}")),
        _ => {}
    }
}

/// The characters of XML's own names and of numbers.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let known = after.split_once(';').and_then(|(name, after)| Some((character(name)?, after)));
        let (character, after) = known.unwrap_or(('&', after));
        plain.push(character);
        rest = after;
    }
    plain.push_str(rest);
    plain
}

fn character(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let hexadecimal = number.strip_prefix('x').map(|digits| u32::from_str_radix(digits, 16));
            char::from_u32(hexadecimal.unwrap_or_else(|| number.parse()).ok()?)?
        }
    })
}

/// Tasks of Windows before Vista.
fn jobs(files: &Files<'_>, system_root: &str) -> Vec<ScheduledTask> {
    let folder = format!("{system_root}/Tasks");
    let names = files.names(&folder).into_iter();
    let jobs = names.filter(|name| name.to_ascii_lowercase().ends_with(".job")).take(TASKS_MAX);
    let job = |name: String| {
        let source = format!("{folder}/{name}");
        let bytes = files.bytes(&source)?;
        let task = task_of_job(&bytes);
        if task.is_none() {
            files.warn(&*source, "it is no task");
        }
        Some(ScheduledTask { path: format!("\\{name}"), source, ..task? })
    };
    jobs.filter_map(job).collect()
}

fn task_of_job(bytes: &[u8]) -> Option<ScheduledTask> {
    let flags = le_u32(bytes, 0x30)?;
    let mut at = JOB_TEXTS;
    let mut text = || {
        let units = usize::from(le_u16(bytes, at)?);
        let text = utf16_text(slice(bytes, at + 2, units * 2)?);
        at += 2 + units * 2;
        Some(text)
    };
    let (program, arguments, _, author, comment) = (text()?, text()?, text()?, text()?, text()?);
    let given = |text: String| (!text.is_empty()).then_some(text);
    Some(ScheduledTask {
        enabled: Some(flags & JOB_DISABLED == 0),
        author: given(author),
        description: given(comment),
        commands: vec![format!("{program} {arguments}").trim_end().to_owned()],
        ..ScheduledTask::default()
    })
}

/// Where the files are not there, the registry still has the names.
fn names_of_cache(hives: &Hives<'_>) -> Vec<ScheduledTask> {
    let key = hives.software_key("Microsoft\\Windows NT\\CurrentVersion\\Schedule\\TaskCache\\Tasks");
    let keys = key.map(|key| key.keys()).unwrap_or_default();
    let task = |key: &super::hives::Node<'_>| {
        Some(ScheduledTask {
            path: key.text("Path")?,
            author: key.text("Author"),
            description: key.text("Description"),
            source: key.path(),
            ..ScheduledTask::default()
        })
    };
    keys.iter().filter_map(task).take(TASKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of Windows 10's own `\Microsoft\Windows\Defrag\ScheduledDefrag`.
    const XML: &str = r#"<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.6" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Author>$(@%systemRoot%\system32\defragsvc.dll,-800)</Author><Description>a &amp; b</Description></RegistrationInfo>
  <!-- <Settings><Enabled>false</Enabled></Settings> -->
  <Triggers><LogonTrigger/><CalendarTrigger><Enabled>false</Enabled></CalendarTrigger></Triggers>
  <Settings><Enabled>true</Enabled><IdleSettings/></Settings>
  <Principals><Principal id="LocalSystem"><UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel></Principal></Principals>
  <Actions Context="LocalSystem"><Exec><Command>%windir%\system32\defrag.exe</Command><Arguments>-c -h</Arguments></Exec>
  <ComHandler><ClassId>{A}</ClassId></ComHandler></Actions>
</Task>"#;

    #[test]
    fn tasks_of_xml_are_read() {
        let task = task_of_xml(XML).unwrap();
        assert_eq!(task.enabled, Some(true));
        assert_eq!(task.description.as_deref(), Some("a & b"));
        assert_eq!(task.triggers, ["logon", "calendar"]);
        assert_eq!(task.commands, ["%windir%\\system32\\defrag.exe -c -h", "com:{A}"]);
        assert_eq!(task.run_as.as_deref(), Some("S-1-5-18"));
        assert_eq!(task.run_level.as_deref(), Some("highest-available"));
        for text in ["", "<a>", "<Task", "<Job></Job>", &"<Task>".repeat(100_000)] {
            assert!(task_of_xml(text).is_none());
        }
    }

    #[test]
    fn tasks_of_older_windows_are_read() {
        let mut job = vec![0; JOB_TEXTS];
        job[0x30] = 4;
        for text in ["C:\\a.exe", "/x", "", "bob", "note"] {
            job.extend(u16::try_from(text.len() + 1).unwrap().to_le_bytes());
            job.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        }
        let task = task_of_job(&job).unwrap();
        assert_eq!((task.enabled, task.commands), (Some(false), vec!["C:\\a.exe /x".to_owned()]));
        assert_eq!((task.author.as_deref(), task.description.as_deref()), (Some("bob"), Some("note")));
        assert!(task_of_job(&job[..100]).is_none());
    }
}
