#!/bin/sh
# Says before a hibernation, or after an update of kernels, whether the session could be resumed.
#
#   hibercheck-preflight stop    ends with 1 if the default boot entry certainly loses the session, and with 0 otherwise:
#                                where nothing is proved, where a fact is missing, where hibercheck fails or takes too
#                                long, the machine hibernates, for its battery may be dying.  For the systemd unit.
#   hibercheck-preflight warn    warns and ends with 0.  For hooks that run when a kernel is installed or removed.
#
# Install it as /usr/local/libexec/hibercheck-preflight.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin${HIBERCHECK_PATH:+:$HIBERCHECK_PATH}
export PATH
limit=${HIBERCHECK_PATIENCE:-30}

said=$(timeout "$limit" hibercheck preflight --fail-on fatal -q 2>/dev/null)
status=$?

# Status 1 is also that of a Python that does not start: only with a verdict is it an answer.
case $status:$said in
"1:not found: "* | "1:refused: "* | "1:fatal: "*) ;;
*) exit 0 ;;
esac

if [ "$1" = warn ]; then
    printf 'hibercheck: warning: the running kernel could not be resumed now: %s\n' "$said" >&2
    printf 'hibercheck: start the new kernel before you hibernate; hibercheck preflight says more\n' >&2
    exit 0
fi
printf 'hibercheck: not hibernating: %s\n' "$said" >&2
exit 1
