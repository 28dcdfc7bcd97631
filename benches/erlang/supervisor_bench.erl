%% The same supervisor in Erlang: a process for each port, which opens the port again when its
%% program ends. Started as
%%
%%   erl -noshell -noinput -pa FOLDER -run supervisor_bench main COUNT PROGRAM ARGUMENT
-module(supervisor_bench).
-export([main/1]).

main([Count, Program, Argument]) ->
    Owners = [spawn_link(fun() -> own(Program, Argument) end) || _ <- lists:seq(1, list_to_integer(Count))],
    receive {done, Owners} -> ok end.

own(Program, Argument) ->
    Port = open_port({spawn_executable, Program}, [exit_status, binary, {args, [Argument]}]),
    receive
        {Port, {exit_status, _}} -> own(Program, Argument)
    end.
