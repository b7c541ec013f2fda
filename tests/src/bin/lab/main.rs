//! The network lab as a program.

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod flash_crowd;
#[cfg(target_os = "linux")]
mod long_pipe;
#[cfg(target_os = "linux")]
mod nat_cost;
#[cfg(target_os = "linux")]
mod nat_matrix;
#[cfg(target_os = "linux")]
mod run;

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the lab is made of Linux network namespaces");
    std::process::exit(1);
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use clap::Parser;
    use qshare_tests::lab::isolation;

    let cli = args::Cli::parse();
    if !isolation::is_inside() {
        return match isolation::run_again(std::env::args_os().skip(1)) {
            Ok(status) => code(status),
            Err(error) => fail(&error.into()),
        };
    }
    let done = isolation::prepare()
        .map_err(anyhow::Error::from)
        .and_then(|()| match &cli.command {
            args::Command::Run(args) => run::run(args).map(code),
            args::Command::Shell(args) => run::shell(args).map(code),
            args::Command::Nats => run::nats(),
            args::Command::NatMatrix(args) => nat_matrix::matrix(args),
            args::Command::NatMoves(args) => nat_matrix::moves(args),
            args::Command::NatRelay(args) => nat_cost::relay(args),
            args::Command::NatIdle(args) => nat_cost::idle(args),
            args::Command::FlashCrowd(args) => flash_crowd::run(args),
            args::Command::LongPipe(args) => long_pipe::run(args),
            args::Command::LongGet(args) => long_pipe::run_get(args),
        });
    done.unwrap_or_else(|error| fail(&error))
}

#[cfg(target_os = "linux")]
fn code(status: std::process::ExitStatus) -> std::process::ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.unwrap_or(1).into()
}

#[cfg(target_os = "linux")]
fn fail(error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("lab: {error:#}");
    1.into()
}
