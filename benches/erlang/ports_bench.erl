%% The same with Erlang's ports; what is measured and printed is said in benches/c/ports.c.
%%
%%   erl -noshell -noinput -pa FOLDER -run ports_bench main MODE ECHO SIZE COUNT [PORTS]
-module(ports_bench).
-export([main/1]).

main([Mode, Echo, Size, Count | Ports]) ->
    Message = binary:copy(<<0>>, list_to_integer(Size)),
    Value = run(Mode, Echo, Message, list_to_integer(Count), [list_to_integer(P) || P <- Ports]),
    io:format("~f~n", [float(Value)]),
    halt(0).

open(Echo) -> open_port({spawn_executable, Echo}, [{packet, 4}, binary, use_stdio]).

seconds(From) -> erlang:convert_time_unit(erlang:monotonic_time() - From, native, nanosecond) / 1.0e9.

run("pingpong", Echo, Message, Count, []) ->
    Port = open(Echo),
    _ = [trip(Port, Message) || _ <- lists:seq(1, 100)],
    Took = [trip(Port, Message) || _ <- lists:seq(1, Count)],
    lists:nth(Count div 2 + 1, lists:sort(Took)) * 1.0e6;
run("pipelined", Echo, Message, Count, []) ->
    Port = open(Echo),
    From = erlang:monotonic_time(),
    spawn_link(fun() -> send(Port, Message, Count) end),
    hear(Port, Count),
    Count / seconds(From);
run("fanout", Echo, Message, Count, [Many]) ->
    Self = self(),
    Each = Count div Many,
    Owners = [spawn_link(fun() -> own(Self, Echo, Message, Each) end) || _ <- lists:seq(1, Many)],
    _ = [receive {ready, Owner} -> ok end || Owner <- Owners],
    From = erlang:monotonic_time(),
    _ = [Owner ! go || Owner <- Owners],
    _ = [receive {done, Owner} -> ok end || Owner <- Owners],
    Each * Many / seconds(From).

trip(Port, Message) ->
    From = erlang:monotonic_time(),
    port_command(Port, Message),
    receive {Port, {data, _}} -> ok end,
    seconds(From).

send(_, _, 0) -> ok;
send(Port, Message, Count) -> port_command(Port, Message), send(Port, Message, Count - 1).

hear(_, 0) -> ok;
hear(Port, Count) -> receive {Port, {data, _}} -> hear(Port, Count - 1) end.

own(Parent, Echo, Message, Each) ->
    Port = open(Echo),
    trip(Port, Message),
    Parent ! {ready, self()},
    receive go -> ok end,
    _ = [trip(Port, Message) || _ <- lists:seq(1, Each)],
    Parent ! {done, self()}.
