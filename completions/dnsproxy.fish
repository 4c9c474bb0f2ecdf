# Completion of dnsproxy for fish. The program itself is asked.
function __dnsproxy_ask --argument-names action
    env _DNSPROXY_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$action \
        _TYPER_COMPLETE_ARGS=(commandline -cp) dnsproxy 2>/dev/null
end
complete --command dnsproxy --no-files --condition "__dnsproxy_ask is-args" --arguments "(__dnsproxy_ask get-args)"
