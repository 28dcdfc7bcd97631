%% The same supervisor in Erlang: a process for each port, which opens the port again when its
%% program ends. Started as
%%
%%   erl -noshell -noinput -pa FOLDER -run supervisor_bench main COUNT PROGRAM ARGUMENT [FIFO]
%%
%% With FIFO it writes CLOCK_MONOTONIC to that named pipe, a line of digits, when it hears of an end.
-module(supervisor_bench).
-export([main/1]).

main([Count, Program, Argument]) ->
    main(Count, Program, Argument, none);
main([Count, Program, Argument, Fifo]) ->
    main(Count, Program, Argument, Fifo).

main(Count, Program, Argument, Fifo) ->
    Own = fun() -> own(Program, Argument, Fifo) end,
    Owners = [spawn_link(Own) || _ <- lists:seq(1, list_to_integer(Count))],
    receive {done, Owners} -> ok end.

own(Program, Argument, Fifo) ->
    Port = open_port({spawn_executable, Program}, [exit_status, binary, {args, [Argument]}]),
    receive
        {Port, {exit_status, _}} ->
            tell(Fifo),
            own(Program, Argument, Fifo)
    end.

tell(none) ->
    ok;
tell(Fifo) ->
    {time, At} = lists:keyfind(time, 1, erlang:system_info(os_monotonic_time_source)),
    {ok, Pipe} = file:open(Fifo, [write, raw]),
    ok = file:write(Pipe, [integer_to_binary(At), $\n]),
    ok = file:close(Pipe).
