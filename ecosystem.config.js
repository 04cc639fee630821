// PM2's list of processes: pm2 start ecosystem.config.js --only prover   (docs/pm2.md)
//
// What a process is told comes from the environment of the shell that starts it: each flag of `targon prover` is a
// variable, --wallet.name is TARGON_PROVER__WALLET__NAME. Words in TARGON_PROVER_ARGS are given as flags. No secret
// belongs in this file or in that environment, which `pm2 save` writes to a file: TARGON_VERIFIER__CONFIG names a file
// of options (mode 0600) that holds it.

const path = require("path");

const logs = process.env.TARGON_LOGS || path.join(process.env.PM2_HOME || path.join(process.env.HOME, ".pm2"), "logs");

// What is handed on: our own settings, and where programs find things. Not what else the shell holds.
const settings = /^(TARGON_|BITTENSOR_|HF_|CUDA_|LC_)/;
const places = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH"];
const handed = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => settings.test(name) || places.includes(name)),
);

function neuron(role, stopsWithin) {
  return {
    name: role,
    script: path.join(__dirname, "neurons", role, "app.py"),
    cwd: __dirname,
    interpreter: path.join(__dirname, ".venv", "bin", "python"),
    args: process.env[`TARGON_${role.toUpperCase()}_ARGS`] || "",
    env: { ...handed, PYTHONUNBUFFERED: "1" },
    filter_env: [""], // PM2 leaves out each variable whose name contains one of these, so all of them

    // SIGINT asks for a clean end; SIGKILL follows after this many milliseconds.
    kill_timeout: stopsWithin,
    // The signal is for the neuron alone: an engine that it started ends with it.
    treekill: false,

    autorestart: true,
    // Wrong flags (exit code 2) stay wrong (PM2 shows "waiting restart" then, and yet waits for you). Anything else is tried again, after 1 s at first and 15 s at most, about
    // two hours long, so that a chain or an engine may come later. 30 s of running count as a good start.
    stop_exit_codes: [2],
    min_uptime: "30s",
    max_restarts: 500,
    exp_backoff_restart_delay: 1000,

    // One file for a neuron; pm2-logrotate turns it over.
    out_file: path.join(logs, `${role}.log`),
    error_file: path.join(logs, `${role}.log`),
    merge_logs: true,
    time: false, // each line has its own
  };
}

module.exports = {
  apps: [
    neuron("prover", 30_000),
    // it closes the challenges that are open, as nobody's fault, and writes a snapshot
    neuron("verifier", 60_000),
    // what it committed to is on disk before anybody is shown it
    neuron("oracle", 30_000),
  ],
};
