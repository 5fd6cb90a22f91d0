<%@ page contentType="text/html;charset=UTF-8" %>
Wrong name or password.
